"""New and enlarging lesions, by hand and on simulated follow-ups."""

from __future__ import annotations

import numpy as np
import pytest
from tests.simulated import simulate_follow_up

from msfl_client.features.lesion_change import compare_lesions

SHAPE = (30, 10, 10)


def box(start: int, stop: int, width: int = 3) -> np.ndarray:
    """`stop - start` by width by width voxels of 1 mm."""
    made = np.zeros(SHAPE, bool)
    made[start:stop, 2 : 2 + width, 2 : 2 + width] = True
    return made


def changes(earlier: np.ndarray, later: np.ndarray, voxel_mm3: float = 1.0) -> list[str]:
    return [lesion.change for lesion in compare_lesions(earlier, later, (1.0, 1.0, 1.0), voxel_mm3)]


def test_a_lesion_is_new_when_nothing_was_there_or_a_voxel_away() -> None:
    assert changes(box(2, 5), box(2, 5) | box(7, 11)) == ["stable", "new"]
    assert changes(box(2, 5), box(6, 10)) == ["new"]  # a voxel between them
    assert changes(box(2, 5), box(5, 9)) == ["stable"]  # touching: 9 voxels around it were there, 27 more
    assert changes(np.zeros(SHAPE, bool), box(2, 6)) == ["new"]


def test_a_new_lesion_below_30_mm3_is_not_counted() -> None:
    nothing = np.zeros(SHAPE, bool)
    assert changes(nothing, box(2, 10, width=2)) == ["new"]  # 32 voxels
    assert changes(nothing, box(2, 9, width=2)) == ["stable"]  # 28 voxels
    assert changes(nothing, box(2, 9, width=2), voxel_mm3=1.1) == ["new"]  # 30.8 mm3 in the patient's own head


def test_a_lesion_is_enlarging_when_it_grew_by_half_and_by_50_mm3() -> None:
    assert changes(box(2, 12, width=4), box(2, 17, width=4)) == ["enlarging"]  # 160 to 240 voxels
    assert changes(box(2, 12, width=4), box(2, 16, width=4)) == ["stable"]  # to 224: by 64, but by 40%
    assert changes(box(2, 5), box(2, 11)) == ["enlarging"]  # 27 to 81
    assert changes(box(2, 5), box(2, 10)) == ["stable"]  # to 72: by 45 mm3 only
    assert changes(box(2, 5), box(2, 10), voxel_mm3=1.2) == ["enlarging"]  # by 54 mm3 in the patient's own head
    assert changes(box(2, 17), box(2, 12)) == ["stable"]  # it shrank


def test_lesions_that_grew_together_are_compared_with_both() -> None:
    assert changes(box(2, 10) | box(12, 20), box(2, 20)) == ["stable"]  # 144 to 162
    assert changes(box(2, 5) | box(17, 20), box(2, 20)) == ["enlarging"]  # 54 to 162


def test_a_lesion_that_is_gone_changes_nothing() -> None:
    assert changes(box(2, 5), np.zeros(SHAPE, bool)) == []


@pytest.mark.long
def test_simulated_changes_are_found() -> None:
    happened, found = [], []
    for index in range(6):
        new, enlarging = (index % 4 + 1, index % 3) if index >= 3 else (0, 0)
        lesions = compare_lesions(*simulate_follow_up(31, index, new, enlarging), (2.0, 2.0, 2.0), 8.0)
        happened.append((new, enlarging))
        found.append([sum(lesion.change == kind for lesion in lesions) for kind in ("new", "enlarging")])
    error = np.abs(np.array(found) - np.array(happened)).mean(axis=0)
    print(f"happened {happened}, found {found}, mean absolute error {error}")
    assert error[0] < 1.5
    assert error[1] < 1.5
    assert sum(sum(mine) > 0 for mine in found[3:]) >= 2  # a new lesion and a growing one can both be below 8 mm3
    assert not any(sum(mine) for mine in found[:3])
