"""Simulated lesions: as many and as large as a patient carries, apart from one another, none lost in coarse voxels."""

import numpy as np
import pytest
from scipy import ndimage

from msfl_server.research.simulated_cohort.bands import pieces_of
from msfl_server.research.simulated_cohort.clinical import ClinicalRecord, SitePrevalence, sample_clinical
from msfl_server.research.simulated_cohort.fields import Grid
from msfl_server.research.simulated_cohort.lesions import LesionBurden, _discrete_volumes, _roomiest
from msfl_server.research.simulated_cohort.scanner import Rater, outline

RATER = Rater(threshold=0.45, smallest_mm3=3.0, brain_margin_mm=0.0)


@pytest.fixture(scope="module")
def records() -> list[ClinicalRecord]:
    rng = np.random.default_rng(8)
    return [sample_clinical(rng, SitePrevalence(0.1, 0.1)) for _ in range(1500)]


def test_counts_are_those_of_real_masks(records: list[ClinicalRecord]) -> None:
    counts = [record.burden.num_lesions for record in records]
    # 30 consensus masks: 15, 28, 76, 108, 350.
    assert min(counts) == 15
    assert max(counts) <= 350
    low, median, high = np.percentile(counts, [25, 50, 75])
    assert 26 < low < 48
    assert 62 < median < 84
    assert 95 < high < 135


def test_volumes_fit_into_the_burden(records: list[ClinicalRecord]) -> None:
    rng = np.random.default_rng(9)
    for record in records[:200]:
        volumes_mm3 = _discrete_volumes(rng, record.burden)
        assert len(volumes_mm3) == record.burden.num_lesions
        assert volumes_mm3.sum() <= 1002 * record.burden.volume_ml
        assert np.all(np.diff(volumes_mm3) <= 0)


def test_controls_without_lesions_and_tiny_burdens() -> None:
    rng = np.random.default_rng(9)
    assert len(_discrete_volumes(rng, LesionBurden(0.0, 0))) == 0
    assert _discrete_volumes(rng, LesionBurden(0.005, 3, pattern="spots")).sum() <= 5.01


def test_a_lesion_takes_the_place_with_room() -> None:
    band = np.zeros((40, 40, 40), np.float32)
    band[:, :, :10] = 1
    centres = np.array([[20, 20, 11], [20, 20, 36], [30, 20, 30]])
    assert _roomiest(centres, np.ones(3), 3.0, [], band) == 1
    assert _roomiest(centres[:1], np.ones(3), 3.0, [], band) == 0  # no room anywhere: the best there is


def test_crumbs_of_the_band_are_dropped() -> None:
    extent = np.zeros((30, 30, 30), np.bool_)
    extent[2:10, 2:10, 2:10] = True
    extent[20:22, 20:22, 20:22] = True
    pieces, num_pieces = pieces_of(extent, 1.0)
    assert num_pieces == 1
    assert pieces[5, 5, 5]
    assert not pieces[20:22, 20:22, 20:22].any()


@pytest.mark.parametrize(("voxel_mm", "num_lesions"), [(1.0, 2), (2.0, 2), (3.0, 2)])
def test_a_small_lesion_is_outlined_at_any_resolution(voxel_mm: float, num_lesions: int) -> None:
    fine = Grid((48, 48, 48), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    profile = np.zeros(fine.shape, np.float32)
    profile[10:12, 10:12, 10:12] = 1  # 8 mm3
    profile[28:36, 28:36, 28:36] = 1  # 512 mm3
    size = round(48 / voxel_mm)
    stored = Grid((size,) * 3, (voxel_mm,) * 3, ((voxel_mm - 1) / 2,) * 3)
    mask = outline(np.random.default_rng(1), profile, fine, stored, RATER)
    labels, found = ndimage.label(mask, np.ones((3, 3, 3)))
    assert found == num_lesions
    volumes_mm3 = np.sort(np.bincount(labels.ravel())[1:] * voxel_mm**3)
    assert volumes_mm3[0] <= max(20, voxel_mm**3)
    assert volumes_mm3[1] == pytest.approx(512, rel=0.35)
    assert not outline(np.random.default_rng(1), np.zeros_like(profile), fine, stored, RATER).any()
