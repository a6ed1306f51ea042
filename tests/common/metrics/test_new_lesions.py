"""New lesions by the challenge's rules, on masks small enough to be counted by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from msfl_common.metrics.new_lesions import NEW_LESION_METRICS
from msfl_common.metrics.segmentation import segmentation_metrics

Mask = NDArray[np.bool_]


def mask(*boxes: tuple[slice | int, ...]) -> Mask:
    made = np.zeros((30, 12, 6), bool)
    for box in boxes:
        made[box] = True
    return made


def row(first: int, last: int, at: int = 2) -> tuple[slice | int, ...]:
    """Voxels in a row: a lesion of last - first mm3."""
    return slice(first, last), at, 2


def measure(prediction: Mask, truth: Mask, mm: float = 1.0) -> dict[str, float]:
    return segmentation_metrics(prediction, truth, (mm,) * 3, NEW_LESION_METRICS)


def test_what_is_the_same_is_found() -> None:
    both = mask(row(0, 5), row(10, 20))
    found = measure(both, both)
    assert [found[name] for name in ("new_lesion_f1", "new_lesion_tpr", "new_lesion_ppv", "new_lesion_dsc")] == [
        1.0
    ] * 4
    assert math.isnan(found["false_new_lesions"])
    assert math.isnan(found["false_new_lesion_ml"])


def test_one_of_two_is_found_and_one_of_two_is_made_up() -> None:
    found = measure(mask(row(0, 10), row(0, 5, at=8)), mask(row(0, 10), row(20, 30)))
    assert (found["new_lesion_tpr"], found["new_lesion_ppv"], found["new_lesion_f1"]) == (0.5, 0.5, 0.5)
    assert found["new_lesion_dsc"] == pytest.approx(2 * 10 / (15 + 20))


@pytest.mark.parametrize(("voxels", "is_found"), [(4, False), (5, True)])
def test_a_tenth_is_too_little(voxels: int, is_found: bool) -> None:
    """Of a lesion of 40 voxels: 4 are a tenth, 5 more."""
    truth = mask((slice(0, 20), slice(2, 4), 2))
    assert measure(mask(row(0, voxels)), truth)["new_lesion_tpr"] == is_found


@pytest.mark.parametrize(("length", "is_found"), [(20, True), (21, False)])
def test_what_lies_outside_by_more_than_seven_tenths_finds_nothing(length: int, is_found: bool) -> None:
    """Six voxels of it cover a lesion of six: of 20, 14 are outside."""
    found = measure(mask(row(0, length)), mask(row(0, 6)))
    assert found["new_lesion_tpr"] == is_found


@pytest.mark.parametrize(("first", "is_found"), [(13, True), (12, False)])
def test_those_that_cover_most_of_a_lesion_count(first: int, is_found: bool) -> None:
    """A lesion of 20, a good prediction of its start, and one that is mostly outside beside it.

    13 of the 19 that are covered are 68%, enough; 12 of 19 are 63%, so that the other is looked at.
    """
    truth = mask(row(0, 20))
    spilling = np.zeros_like(truth)
    spilling[first + 1 : 20, 2:, 2] = True  # mostly outside
    covered_by_good = mask(row(0, first))
    assert measure(covered_by_good | spilling, truth)["new_lesion_tpr"] == is_found


def test_of_patients_without_new_lesions_false_ones_are_counted_and_measured() -> None:
    found = measure(mask(row(0, 3), row(10, 14), row(20, 30)), mask())
    assert found["false_new_lesions"] == 2.0  # of 3 mm3 it would have to be more
    assert found["false_new_lesion_ml"] == pytest.approx(0.014)
    assert all(math.isnan(found[name]) for name in list(NEW_LESION_METRICS)[:4])
    nothing = measure(mask(), mask())
    assert (nothing["false_new_lesions"], nothing["false_new_lesion_ml"]) == (0.0, 0.0)


def test_nothing_predicted_of_some_is_the_worst() -> None:
    found = measure(mask(), mask(row(0, 10)))
    assert [found[name] for name in ("new_lesion_f1", "new_lesion_tpr", "new_lesion_dsc")] == [0.0] * 3
    assert math.isnan(found["new_lesion_ppv"])


def test_voxels_that_share_an_edge_alone_are_two_lesions() -> None:
    found = measure(mask((slice(0, 4), 2, 2), (slice(0, 4), 3, 3)), mask())
    assert found["false_new_lesions"] == 2.0


def test_a_speck_is_no_lesion_to_find() -> None:
    found = measure(mask(row(0, 2)), mask(row(0, 2)))
    assert found["new_lesion_dsc"] == 1.0
    assert math.isnan(found["new_lesion_f1"])
    assert math.isnan(found["false_new_lesions"])
