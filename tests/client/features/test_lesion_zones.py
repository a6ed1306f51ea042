"""Zones of lesions, by hand."""

from __future__ import annotations

import numpy as np

from msfl_client.features.lesion_zones import Landmarks, zone_of_each
from msfl_common.metrics.segmentation import label_lesions

SHAPE = (20, 9, 9)
ONE_MM = (1.0, 1.0, 1.0)


def mask(*voxels: tuple[int, int, int]) -> np.ndarray:
    made = np.zeros(SHAPE, bool)
    for voxel in voxels:
        made[voxel] = True
    return made


def zone(lesion: np.ndarray, spacing_mm: tuple[float, float, float] = ONE_MM) -> str:
    """Ventricle at 0, cortex at 19; from 5 below, infratentorial."""
    low = np.zeros(SHAPE, bool)
    low[:, :, :3] = True
    landmarks = Landmarks(mask((0, 4, 6)), mask((19, 4, 6)), low)
    labels, count = label_lesions(lesion, spacing_mm)
    assert count == 1
    return zone_of_each(labels, count, landmarks, spacing_mm)[0]


def row(start: int, stop: int, height: int = 6) -> np.ndarray:
    return mask(*((d, 4, height) for d in range(start, stop)))


def test_each_zone_ends_where_its_rule_says() -> None:
    assert zone(row(3, 7)) == "periventricular"  # 3 mm from the ventricle
    assert zone(row(4, 8)) == "deep_white"  # 4 mm from it
    assert zone(row(12, 18)) == "juxtacortical"  # 2 mm from the cortex
    assert zone(row(12, 17)) == "deep_white"  # 3 mm from it
    assert zone(row(8, 12, height=1)) == "infratentorial"


def test_distances_are_in_millimetres() -> None:
    assert zone(row(1, 4), (2.0, 2.0, 2.0)) == "periventricular"  # touching: 2 mm
    assert zone(row(2, 6), (2.0, 2.0, 2.0)) == "deep_white"  # 4 mm
    assert zone(row(16, 19), (2.0, 2.0, 2.0)) == "juxtacortical"  # touching: 2 mm
    assert zone(row(14, 18), (2.0, 2.0, 2.0)) == "deep_white"  # 4 mm


def test_the_first_zone_that_applies_wins() -> None:
    assert zone(row(1, 19)) == "periventricular"  # reaches the cortex, too
    assert zone(row(1, 19, height=2)) == "infratentorial"
    column = mask(*((9, 4, height) for height in range(2, 5)))
    assert zone(column) == "deep_white"  # a third of it is infratentorial
    assert zone(column | mask((9, 4, 1))) == "infratentorial"  # half of it is


def test_without_ventricles_or_cortex_nothing_is_near_them() -> None:
    nothing = np.zeros(SHAPE, bool)
    labels, count = label_lesions(row(1, 5), ONE_MM)
    assert zone_of_each(labels, count, Landmarks(nothing, nothing, nothing), ONE_MM) == ["deep_white"]


def test_no_lesion_no_zone() -> None:
    nothing = np.zeros(SHAPE, bool)
    assert zone_of_each(nothing.astype(np.int32), 0, Landmarks(nothing, nothing, nothing), ONE_MM) == []
