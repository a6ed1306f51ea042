"""Lesion statistics on a hand-made mask, and simulated lesions held against real ones."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from msfl_server.research.simulated_cohort.statistics import (
    SizeTable,
    lesion_statistics,
    simulate_lesion_mask,
    size_table,
)

REAL = Path(__file__).resolve().parents[4].parent / "shared" / "data" / "open_ms" / "derivatives" / "lesion_shapes"
NUM_SIMULATED = 8


def test_statistics_of_a_hand_made_mask() -> None:
    mask = np.zeros((20, 20, 20), np.uint8)
    mask[1:3, 1:3, 1:3] = 1  # 8 voxels, 16 mm3
    mask[3, 3, 3] = 1  # joined by a corner: 18 mm3 in all
    mask[10, 10, 10] = 1  # 2 mm3: below the smallest lesion
    mask[15, 15, 10:12] = 1  # 4 mm3
    found = lesion_statistics(mask, (1.0, 1.0, 2.0))
    assert found.num_lesions == 2
    assert sorted(found.volumes_mm3) == [4.0, 18.0]
    assert found.total_ml == pytest.approx(0.022)
    assert found.zone_fractions == ()


def test_statistics_refuse_other_dimensions() -> None:
    with pytest.raises(ValueError, match="3 dimensions"):
        lesion_statistics(np.zeros((3, 3), np.uint8), (1, 1, 1))


@pytest.fixture(scope="module")
def tables() -> tuple[SizeTable, SizeTable]:
    if not REAL.is_dir():
        pytest.skip("the real masks are not at hand")
    real = []
    for path in sorted(REAL.glob("*.nii.gz")):
        image = nib.as_closest_canonical(nib.load(path))
        real.append(lesion_statistics(np.asarray(image.dataobj) > 0, image.header.get_zooms(), image.affine))
    simulated = []
    for case in range(NUM_SIMULATED):
        mask_DHW, grid = simulate_lesion_mask((11, case))
        simulated.append(lesion_statistics(mask_DHW, grid.spacing_mm, grid.affine))
    return size_table(real), size_table(simulated)


@pytest.mark.long
@pytest.mark.slow
def test_counts_and_volumes_agree(tables: tuple[SizeTable, SizeTable]) -> None:
    real, simulated = tables
    assert 0.5 < simulated.count_quartiles[1] / real.count_quartiles[1] < 2
    assert abs(simulated.ln_ml_mean - real.ln_ml_mean) < 1.0
    assert 0.6 < simulated.ln_ml_spread < 2.0


@pytest.mark.long
@pytest.mark.slow
def test_single_lesion_sizes_agree(tables: tuple[SizeTable, SizeTable]) -> None:
    real, simulated = tables
    for mine, theirs in zip(simulated.single_mm3_quartiles, real.single_mm3_quartiles, strict=True):
        assert 0.6 < mine / theirs < 1.6
    assert abs(simulated.share_3_to_10_mm3 - real.share_3_to_10_mm3) < 0.12


@pytest.mark.long
@pytest.mark.slow
def test_zones_agree(tables: tuple[SizeTable, SizeTable]) -> None:
    real, simulated = tables
    assert np.abs(np.subtract(simulated.zone_fractions, real.zone_fractions)).max() < 0.18
