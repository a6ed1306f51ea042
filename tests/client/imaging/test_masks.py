"""Lesion masks on other grids: as large as they were, with all their lesions, where they were."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine
from scipy import ndimage

from msfl_client.imaging.masks import Grid, Mask, carry_mask

SPHERES_MM = ((8.3, 11.1, 9.7, 0.95), (20.2, 9.4, 12.9, 1.4), (13.7, 22.8, 25.1, 2.6), (27.3, 26.9, 10.2, 5.3))


def spheres(affine: np.ndarray, shape: tuple[int, int, int], radii: float = 1.0) -> nib.Nifti1Image:
    """Lesions of 4 to 600 mm3, on a grid."""
    points = apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1))
    mask = np.zeros(shape, np.float32)
    for x, y, z, radius in SPHERES_MM:
        mask[np.linalg.norm(points - (x, y, z), axis=-1) <= radius * radii] = 1
    return nib.Nifti1Image(mask, affine)


def coarse(spacing_mm: float, origin_mm: float) -> Grid:
    affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    affine[:3, 3] = origin_mm
    return (round(36 / spacing_mm),) * 3, affine


def volume_mm3(mask: Mask | np.ndarray, affine: np.ndarray) -> float:
    return float(mask.sum() * abs(np.linalg.det(affine[:3, :3])))


@pytest.mark.parametrize("spacing_mm", [1.3, 2.0, 3.0, 5.0])
@pytest.mark.parametrize("origin_mm", [0.0, 0.5, -0.7])
def test_a_mask_on_a_coarser_grid_keeps_its_volume_and_every_lesion(spacing_mm: float, origin_mm: float) -> None:
    fine = spheres(np.eye(4), (36, 36, 36))
    shape, affine = coarse(spacing_mm, origin_mm)
    there = carry_mask(fine, (shape, affine))
    assert abs(volume_mm3(there, affine) - fine.get_fdata().sum()) <= spacing_mm**3 / 2 + 1
    for x, y, z, radius in SPHERES_MM:
        points_mm = apply_affine(affine, np.argwhere(there))
        assert np.linalg.norm(points_mm - (x, y, z), axis=1).min() <= radius + spacing_mm


def test_a_lesion_of_three_voxels_stays_beside_a_large_one_and_one_of_two_need_not() -> None:
    mask = np.zeros((40, 40, 40), np.float32)
    mask[4:20, 4:20, 4:20] = 1
    mask[30, 30, 30:33] = 1  # 3 mm3, in voxels of 64
    mask[34, 10, 10:12] = 1  # 2 mm3
    there = carry_mask(nib.Nifti1Image(mask, np.eye(4)), coarse(4.0, 1.5))
    assert ndimage.label(there)[1] == 2
    assert there[7, 7, 7] or there[7, 7, 8]


def test_lesions_smaller_than_a_voxel_stay_where_nothing_else_is() -> None:
    mask = np.zeros((40, 40, 40), np.float32)
    for corner in (5, 17, 29):
        mask[corner : corner + 2, 9:11, 9:11] = 1
    there = carry_mask(nib.Nifti1Image(mask, np.eye(4)), coarse(4.0, 1.5))
    assert np.argwhere(there).tolist() == [[1, 2, 2], [4, 2, 2], [7, 2, 2]]


def test_thick_slices_are_laid_out_over_thinner_ones() -> None:
    thick = spheres(np.diag([1.0, 1.0, 4.0, 1.0]), (36, 36, 9))
    shape, affine = coarse(1.0, 0.0)
    there = carry_mask(thick, (shape, affine))
    assert volume_mm3(there, affine) == pytest.approx(volume_mm3(thick.get_fdata(), thick.affine), rel=0.01)
    assert there[:, :, 11:14][thick.get_fdata()[:, :, 3] > 0].all()  # wholly in the slice from 10 to 14 mm


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_mirrored_mask_gives_the_mirrored_one(axis: int) -> None:
    """Equal shares, of which there are many between grids that fit each other, are not decided by side."""
    grid = coarse(2.0, 0.5)
    straight = spheres(np.eye(4), (36, 36, 36), radii=1.3)
    mirrored = nib.Nifti1Image(np.flip(straight.get_fdata(), axis).astype(np.float32), np.eye(4))
    differ = carry_mask(straight, grid) ^ np.flip(carry_mask(mirrored, grid), axis)
    assert differ.sum() <= 0.02 * carry_mask(straight, grid).sum()


def test_a_mask_stays_on_its_own_grid_bit_by_bit_and_nothing_stays_nothing() -> None:
    mask = np.random.default_rng(0).random((9, 8, 7)) < 0.2
    image = nib.Nifti1Image(mask.astype(np.float32), np.diag([1.0, 2.0, 3.0, 1.0]))
    assert np.array_equal(carry_mask(image, ((9, 8, 7), image.affine + 1e-6)), mask)
    assert not carry_mask(nib.Nifti1Image(np.zeros((9, 8, 7), np.float32), np.eye(4)), coarse(2.0, 0)).any()
    assert not carry_mask(image, coarse(2.0, 500.0)).any()  # elsewhere
