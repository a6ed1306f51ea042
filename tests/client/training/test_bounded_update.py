"""How far a site's update of a network may go."""

from __future__ import annotations

import numpy as np
import pytest

from msfl_client.training.bounded_update import bounded_update
from msfl_common.errors import RefusedError

BEFORE = {"w": np.array([1.0, 2.0], np.float32), "bn.running_mean": np.array([5.0], np.float32)}
AFTER = {"w": np.array([4.0, 6.0], np.float32), "bn.running_mean": np.array([105.0], np.float32)}  # a way of 5, and 100


@pytest.mark.parametrize("most", [None, 5.0, 7.0])
def test_one_within_the_bound_is_left_as_it_is(most: float | None) -> None:
    found = bounded_update(BEFORE, AFTER, most)
    assert all(found[name] is AFTER[name] for name in AFTER)


def test_a_longer_one_goes_part_of_its_way() -> None:
    found = bounded_update(BEFORE, AFTER, 1.0)
    assert found["w"].tolist() == pytest.approx([1.6, 2.8])
    assert found["bn.running_mean"].tolist() == [25.0]
    assert {value.dtype for value in found.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_one_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(RefusedError, match="not finite"):
        bounded_update(BEFORE, AFTER | {"w": np.array([1.0, value], np.float32)}, 1.0)
