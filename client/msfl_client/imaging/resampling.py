"""Images read in RAS order, brought to another grid, and their intensities normalised.

Legend: C contrast, D/H/W voxels (D runs to the right, H to the front, W up).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.processing import resample_from_to
from numpy.typing import NDArray
from scipy import ndimage

from msfl_client.imaging.volumes import read_volume
from msfl_common.errors import CaseError

CLIP_PERCENTILES = (0.5, 99.95)


FloatImage = NDArray[np.float32]


def read_image(path: Path) -> nib.Nifti1Image:
    """A 3D image with its axes in RAS order; values that are not finite become 0.

    Raises:
        CaseError: the file cannot be read as a 3D image.
        OSError: the file cannot be opened.
    """
    volume = read_volume(path)
    return nib.as_closest_canonical(nib.Nifti1Image(np.nan_to_num(volume.voxels_IJK), volume.affine))


def read_mask(path: Path, num_classes: int = 1) -> nib.Nifti1Image:
    """A mask with its axes in RAS order, 0 and 1; shares that are rounding errors of these become them.

    Args:
        path: the file.
        num_classes: of several, 0 and the number of a voxel's class; of 1, classes are not told apart.

    Raises:
        CaseError: the file cannot be read as a 3D image, or has a value that is no class.
        OSError: the file cannot be opened.
    """
    image = read_image(path)
    voxels_DHW = np.asarray(image.dataobj)
    labels_DHW = (voxels_DHW >= 0.5) if num_classes == 1 else np.rint(voxels_DHW)
    if labels_DHW.max() > num_classes:
        raise CaseError(f"{path.name}: expected the values 0 to {num_classes}, found {labels_DHW.max():g}")
    return nib.Nifti1Image(labels_DHW.astype(np.float32), image.affine)


def resample(image: nib.Nifti1Image, grid: tuple[Sequence[int], NDArray[np.float64]]) -> FloatImage:
    """Linear resampling to `grid` (shape, affine) after the blur that keeps coarser grids free of aliasing.

    The blur's FWHM is the target voxel size less the source's, in quadrature, along each source axis.
    """
    shape, affine = grid
    if tuple(image.shape) == tuple(shape) and np.allclose(image.affine, affine, atol=1e-4):
        return np.asarray(image.dataobj, dtype=np.float32)
    source_mm = np.asarray(voxel_sizes(image.affine))
    target_mm = float(np.min(voxel_sizes(affine)))
    fwhm_voxels = np.sqrt(np.maximum(target_mm**2 - source_mm**2, 0.0)) / source_mm
    smooth = ndimage.gaussian_filter(np.asarray(image.dataobj), fwhm_voxels / 2.3548)
    moved = resample_from_to(nib.Nifti1Image(smooth, image.affine), (tuple(shape), affine), order=1)
    return np.asarray(moved.dataobj, dtype=np.float32)


def normalise(image_DHW: FloatImage) -> FloatImage:
    """Clip to `CLIP_PERCENTILES` of the positive voxels and z-score over them; elsewhere the lowest of these."""
    brain_DHW = image_DHW > 0
    if not brain_DHW.any():
        return np.zeros_like(image_DHW)
    low, high = np.percentile(image_DHW[brain_DHW], CLIP_PERCENTILES)
    clipped_DHW = np.clip(image_DHW, low, high)
    values = clipped_DHW[brain_DHW].astype(np.float64)
    scaled_DHW = (clipped_DHW - values.mean()) / max(float(values.std()), 1e-6)
    return np.where(brain_DHW, scaled_DHW, scaled_DHW[brain_DHW].min()).astype(np.float32)
