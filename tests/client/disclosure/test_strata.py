"""Groups of patients are told by themselves where nothing that can be subtracted is of too few."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from msfl_client.disclosure.strata import UNKNOWN, may_tell, told_variables
from msfl_common.config.secure_aggregation import SecureAggregation
from msfl_common.config.study import StudyConfig

MANY = [f"p{number}" for number in range(24)]


def levels(**by_variable: str) -> dict[str, np.ndarray]:
    return {name: np.array([UNKNOWN if one == "?" else int(one) for one in of]) for name, of in by_variable.items()}


@pytest.mark.parametrize(
    ("sex", "age", "told"),
    [
        ("0" * 12 + "1" * 12, "01" * 12, ("sex", "age")),  # six in each cell
        ("0" * 20 + "1" * 4, "01" * 12, ("age",)),  # four men
        ("0" * 12 + "1" * 12, "0" * 6 + "1" * 7 + "0" * 11, ("sex",)),  # one young man would be left of women and old
        ("0" * 12 + "1" * 11 + "?", "01" * 12, ("age",)),  # all less women less men is one patient
        ("0" * 24, "?" * 24, ()),  # one group is all, and none is nobody
        ("0" * 12 + "1" * 12, "0" * 12 + "1" * 12, ("sex", "age")),  # the same groups: nothing is left of them
    ],
)
def test_no_cell_is_smaller_than_the_floor(sex: str, age: str, told: tuple[str, ...]) -> None:
    assert told_variables(levels(sex=sex, age=age), MANY, 5) == told


def test_a_group_needs_patients_of_each_class() -> None:
    labels_N = np.array([0, 1] * 12)
    assert told_variables(levels(sex="0" * 12 + "1" * 12), MANY, 6, labels_N) == ("sex",)
    assert told_variables(levels(sex="0" * 12 + "1" * 12), MANY, 7, labels_N) == ()


def test_patients_count_not_visits() -> None:
    assert told_variables(levels(sex="0" * 12 + "1" * 12), [name[:2] for name in MANY], 5) == ()


@pytest.mark.parametrize("seed", range(5))
def test_no_sum_over_fewer_patients_comes_of_what_is_told(seed: int) -> None:
    """Every combination of the told sums with small whole weights that is a sum over patients, or a multiple of one."""
    rng = np.random.default_rng(seed)
    found = {name: rng.integers(-1 if name == "age" else 0, 2, 24) for name in ("sex", "age")}
    told = told_variables(found, MANY, 3)
    sums = [np.ones(24), *(found[name] == level for name in told for level in (0, 1))]
    for weights in itertools.product((-2, -1, 0, 1, 2), repeat=len(sums)):
        left_N = sum(weight * np.asarray(one, float) for weight, one in zip(weights, sums, strict=True))
        assert np.count_nonzero(left_N) == 0 or np.count_nonzero(left_N) >= 3


def test_under_masks_no_group_is_told() -> None:
    assert may_tell(StudyConfig(name="s"))
    assert not may_tell(StudyConfig(name="s", secure_aggregation=SecureAggregation(method="masks")))
