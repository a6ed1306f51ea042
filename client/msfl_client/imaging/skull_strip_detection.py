"""What was done to images already, told from the images themselves."""

from __future__ import annotations

from collections.abc import Mapping

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from msfl_common.config.base import Contrast, Preprocessed

# A brain on the template is a third larger than it was: 2.4 l are seen. Heads, cut at the vertex and the neck where
# the slices ended, are seen from 2.5 l; they touch these faces with a fifth or more of them, brains with a twentieth.
LARGEST_BRAIN_ML = 2700.0
_LARGEST_CUT_BRAIN_ML = 1800.0
_CUT_SHARE = 0.1
_TEMPLATE_DICE = 0.9
_LOOKED_AT_MM = 2.0
_NEARLY_CONSTANT, _UNEVEN, _UNEVEN_AIR = 0.002, 0.02, 0.1  # of the brightest
_LOOKED_AT_EVERY = 7  # voxels, for how bright the brightest is


def is_brain_alone(voxels: NDArray[np.float32], affine: NDArray[np.float64]) -> bool:
    """Whether the brain was extracted: a constant background, and no more than a brain before it.

    A resampling by Fourier's transform or a lossy format leave less than 0.2% of the brightest in the background; the
    air around a head has more, or the head is larger than a brain.

    Args:
        voxels: an image, in any orientation.
        affine: 4 x 4, voxel indices to millimetres.
    """
    background = background_of(voxels)
    if _is_of_a_brain(voxels != background, affine):
        return True
    apart = np.abs(voxels - background)
    brightest = float(np.percentile(apart.ravel(order="K")[::_LOOKED_AT_EVERY], 99.5))
    return _is_of_a_brain(apart > _NEARLY_CONSTANT * brightest, affine)


def _is_of_a_brain(apart: NDArray[np.bool_], affine: NDArray[np.float64]) -> bool:
    """Whether what differs from the background is no more than a brain."""
    volume_ml = float(apart.sum() * abs(np.linalg.det(affine[:3, :3]))) / 1000
    at_faces = max(float(np.take(apart, end, axis=axis).mean()) for axis in range(3) for end in (0, -1))
    return volume_ml <= (LARGEST_BRAIN_ML if at_faces <= _CUT_SHARE else _LARGEST_CUT_BRAIN_ML)


def brain_of(extracted: nib.Nifti1Image) -> NDArray[np.bool_]:
    """The brain in a brain-extracted image: what differs from the background, without holes."""
    apart_DHW = apart_from_background(np.asarray(extracted.dataobj, dtype=np.float32), extracted.affine)
    brain_DHW: NDArray[np.bool_] = ndimage.binary_fill_holes(apart_DHW)
    return brain_DHW


def apart_from_background(
    voxels: NDArray[np.float32], affine: NDArray[np.float64], of_brain: bool = True
) -> NDArray[np.bool_]:
    """What differs from the background.

    Where that is more than a brain, the background is not exactly constant (after a resampling with overshoot, say);
    then it is what differs by over 2% of the brightest; of a whole head, by over a tenth.
    """
    apart = np.abs(voxels - background_of(voxels))
    least = 0.0
    if not _is_of_a_brain(apart > 0, affine):
        least = (_UNEVEN if of_brain else _UNEVEN_AIR) * float(np.percentile(apart, 99.5))
    differs: NDArray[np.bool_] = apart > least
    return differs


def recognise(images: Mapping[Contrast, nib.Nifti1Image]) -> Preprocessed:
    """What a case's images are: not skull-stripped, skull-stripped, or that on the template ("common-space").

    Skull-stripped images count as in the common space when all contrasts share one grid and the brain overlaps the
    template's with a Dice coefficient of 0.9 or more.
    """
    if not all(is_brain_alone(np.asarray(image.dataobj, np.float32), image.affine) for image in images.values()):
        return "none"
    first, *others = images.values()
    if not all(share_grid(first, other) for other in others):
        return "brain"
    return "common-space" if _template_dice(first) >= _TEMPLATE_DICE else "brain"


def share_grid(one: nib.Nifti1Image, other: nib.Nifti1Image) -> bool:
    """Whether the voxels of two images lie on top of each other."""
    return one.shape == other.shape and np.allclose(one.affine, other.affine, atol=1e-3)


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Overlap of two masks, 0 to 1."""
    return float(2 * (one & other).sum() / max(int(one.sum() + other.sum()), 1))


def _template_dice(extracted: nib.Nifti1Image) -> float:
    from msfl_client.imaging.registration import load_template, template_brain
    from msfl_client.imaging.resampling import resample

    template = load_template(_LOOKED_AT_MM)
    brain = nib.Nifti1Image(brain_of(extracted).astype(np.float32), extracted.affine)
    brain_DHW = resample(brain, (template.shape, template.affine)) >= 0.5
    return dice(brain_DHW, template_brain(_LOOKED_AT_MM))


def background_of(voxels: NDArray[np.float32]) -> float:
    """The median of the six outermost planes."""
    border = [np.take(voxels, (0, -1), axis=axis).ravel() for axis in range(3)]
    return float(np.median(np.concatenate(border)))
