"""Where the contrasts of a case lie on the one that brain and template are matched on.

Orientation is RAS. Legend: D/H/W voxels (D runs to the right, H to the front, W up).
"""

from __future__ import annotations

from collections.abc import Mapping

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from msfl_client.data.aligned_images import in_words, placed, places
from msfl_client.data.bids import Case
from msfl_client.imaging.alignment import align
from msfl_client.imaging.fit import Matrix, thin_image
from msfl_client.imaging.registration import Registration, register_rigid
from msfl_client.imaging.resampling import resample
from msfl_client.imaging.skull_strip_detection import share_grid
from msfl_common.config.base import Preprocessed
from msfl_common.config.contrasts import Contrast
from msfl_common.errors import CaseError

_STAYS = Registration(np.eye(4), None)


def co_register(
    case: Case,
    native: Mapping[Contrast, nib.Nifti1Image],
    anchor: Contrast,
    brain_DHW: NDArray[np.bool_],
    found: Preprocessed,
) -> dict[Contrast, Registration]:
    """For each contrast where it lies on the anchor.

    Skull-stripped images that lie on one another and share a grid stay as they are.

    Args:
        case: the case.
        native: its images as read.
        anchor: the contrast that stays.
        brain_DHW: the brain on the anchor's grid.
        found: what the images are.

    Raises:
        CaseError: two images cannot be brought to lie on one another.
    """
    there = {contrast: np.eye(4) for contrast in native} if found == "none" else places(case, native, anchor)
    lies = {}
    for contrast, image in native.items():
        stays = np.array_equal(there[contrast], np.eye(4))
        if contrast == anchor:
            lies[contrast] = _STAYS
        elif found == "none":
            lies[contrast] = _registered(contrast, image, anchor, native[anchor], brain_DHW)
        elif found == "brain" and stays and not share_grid(image, native[anchor]):
            lies[contrast] = register_rigid(image, native[anchor], brain_DHW)
        else:
            lies[contrast] = _STAYS if stays else Registration(there[contrast], None)
    return lies


def brain_on(image: nib.Nifti1Image, brain: nib.Nifti1Image, lies: Matrix) -> NDArray[np.bool_]:
    """The anchor's brain on the grid of another contrast, which `lies` brings onto the anchor."""
    own_DHW: NDArray[np.bool_] = resample(placed(brain, np.linalg.inv(lies)), (image.shape, image.affine)) >= 0.5
    return own_DHW


def _registered(
    contrast: Contrast,
    image: nib.Nifti1Image,
    anchor: Contrast,
    fixed: nib.Nifti1Image,
    brain_DHW: NDArray[np.bool_],
) -> Registration:
    """Where an image that is not skull-stripped lies on the anchor, if it fits there."""
    found = register_rigid(image, fixed, brain_DHW)
    brain = nib.Nifti1Image(brain_DHW.astype(np.float32), fixed.affine)
    thin, thin_anchor = thin_image(image, brain_on(image, brain, found.matrix)), thin_image(fixed, brain_DHW)
    if thin is None or thin_anchor is None:
        raise CaseError(f"{contrast} and {anchor} show no common part of the brain")
    fits = align(thin.moved(found.matrix), thin_anchor)
    if fits.verdict in ("mirrored", "apart"):
        raise CaseError(in_words(contrast, anchor, fits))
    return found if fits.verdict != "moved" else Registration(fits.matrix @ found.matrix, found.similarity)
