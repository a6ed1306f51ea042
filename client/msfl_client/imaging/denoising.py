"""Noise taken out of an image before anything else is made of it.

Legend: D/H/W voxels (D runs to the right, H to the front, W up).
"""

from __future__ import annotations

from collections.abc import Mapping

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray
from scipy import ndimage

from msfl_common.config.contrasts import Contrast, facts_of
from msfl_common.config.inputs import Denoising

_ITERATIONS, _TIME_STEP = 5, 0.0625  # the longest step that is stable in 3D, in squares of a voxel's shortest edge
_CONDUCTANCE = 0.25  # how much of an image's average gradient counts as noise
_FAINTEST = np.float32(1e-6)  # of the brightest voxel


def denoised(images: Mapping[Contrast, nib.Nifti1Image], denoising: Denoising) -> Mapping[Contrast, nib.Nifti1Image]:
    """Signals (`brain_signal`) without their noise; quantities, and what is 0, stay as they are."""
    if denoising == "none":
        return images
    return {
        contrast: image if facts_of(contrast).is_quantity else nib.Nifti1Image(_diffused(image), image.affine)
        for contrast, image in images.items()
    }


def _diffused(image: nib.Nifti1Image) -> NDArray[np.float32]:
    """Curvature anisotropic diffusion: smooth along edges, hardly across them.

    Whitaker and Xue 2001, doi 10.1109/ICIP.2001.958223, as ITK has it. What is an edge is told from the average
    gradient in the box of the brain, or head: how much empty space is around it makes no difference.
    """
    image_DHW = np.asarray(image.dataobj, dtype=np.float32)
    signal_DHW = image_DHW > 0
    if not signal_DHW.any():
        return image_DHW
    box = ndimage.find_objects(signal_DHW.astype(np.uint8))[0]
    part = sitk.GetImageFromArray(np.ascontiguousarray(image_DHW[box].T))
    sizes_mm = voxel_sizes(image.affine)
    part.SetSpacing([float(size) for size in sizes_mm / sizes_mm.min()])
    diffusion = sitk.CurvatureAnisotropicDiffusionImageFilter()
    diffusion.SetNumberOfThreads(1)
    diffusion.SetNumberOfIterations(_ITERATIONS)
    diffusion.SetTimeStep(_TIME_STEP)
    diffusion.SetConductanceParameter(_CONDUCTANCE)
    smooth_DHW = np.zeros_like(image_DHW)
    smooth_DHW[box] = sitk.GetArrayFromImage(diffusion.Execute(part)).T
    faintest = _FAINTEST * image_DHW.max()  # what was signal stays signal
    return np.where(signal_DHW, np.maximum(smooth_DHW, faintest), 0).astype(np.float32)
