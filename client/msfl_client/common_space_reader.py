"""A site's case in the common space.

Legend: D, H, W are voxels towards right, anterior and superior (RAS).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import nibabel as nib
import numpy as np
from nibabel.spaces import vox2out_vox
from numpy.typing import NDArray
from scipy import ndimage

from msfl_client.bids import Case
from msfl_client.common_space import CommonSpaceCase
from msfl_client.preprocess import read_image, resample
from msfl_common.config import Contrast, Inputs
from msfl_common.errors import CaseError


def common_space_of(case: Case, inputs: Inputs) -> CommonSpaceCase:
    """Read a case whose images are brain-extracted and lie in MNI152 space already.

    Raises:
        CaseError: an image cannot be read, or no brain lies where the template has its own.
        OSError: a file cannot be opened.
    """
    images = {contrast: read_image(case.images[contrast]) for contrast in inputs.contrasts}
    return place(images, read_image(case.mask) if case.mask else None, inputs.spacing_mm)


def place(
    images: Mapping[Contrast, nib.Nifti1Image], mask: nib.Nifti1Image | None, spacing_mm: float
) -> CommonSpaceCase:
    """Bring images in MNI152 space onto the template's grid; the brain is where the first one is above 0.

    Raises:
        CaseError: no voxel is.
    """
    grid = template_grid(spacing_mm)
    first = next(iter(images.values()))
    positive = nib.Nifti1Image((np.asarray(first.dataobj) > 0).astype(np.float32), first.affine)
    brain_DHW = ndimage.binary_fill_holes(resample(positive, grid) >= 0.5)
    if not brain_DHW.any():
        raise CaseError("expected a brain in MNI152 space, found no positive intensity where the template lies")
    return CommonSpaceCase(
        images_DHW={name: np.where(brain_DHW, resample(image, grid), 0) for name, image in images.items()},
        brain_DHW=brain_DHW,
        lesion_DHW=None if mask is None else outline(np.where(brain_DHW, resample(mask, grid), 0)),
        affine=np.asarray(grid[1], np.float64),
        native_to_mni=np.eye(4),
    )


def outline(share_DHW: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The mask of a lesion map on a coarser grid: its fullest voxels, as many as the shares add up to.

    Half full as the border would take a third of the volume off patients with small lesions.
    """
    num_voxels = round(float(share_DHW.sum(dtype=np.float64)))
    if num_voxels == 0:
        return np.zeros(share_DHW.shape, np.bool_)
    return np.asarray((share_DHW > 0) & (share_DHW >= np.partition(share_DHW.ravel(), -num_voxels)[-num_voxels]))


@lru_cache(maxsize=2)
def template_grid(spacing_mm: float) -> tuple[Sequence[int], NDArray[np.float64]]:
    """Shape and affine of the MNI152 template at a spacing."""
    from nilearn import datasets  # slow to import

    shape, affine = vox2out_vox(datasets.load_mni152_template(resolution=1), (spacing_mm,) * 3)
    return shape, affine
