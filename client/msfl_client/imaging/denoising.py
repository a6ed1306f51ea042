"""Noise taken out of an image before anything else is made of it.

Legend: D/H/W voxels (D runs to the right, H to the front, W up).
"""

from __future__ import annotations

from collections.abc import Mapping

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from msfl_common.config.contrasts import Contrast, facts_of
from msfl_common.config.inputs import Denoising

_PATCH, _REACH = 3, 3  # edge of a patch, and how far away like ones are looked for, voxels
_STRENGTH = 0.8  # of the filter, in standard deviations of the noise
_SD_PER_MAD = 1.4826  # of a normal distribution


def denoised(images: Mapping[Contrast, nib.Nifti1Image], denoising: Denoising) -> Mapping[Contrast, nib.Nifti1Image]:
    """Signals (`brain_signal`) without their noise; quantities, and what is 0, stay as they are."""
    if denoising == "none":
        return images
    return {
        contrast: image if facts_of(contrast).is_quantity else nib.Nifti1Image(_non_local_means(image), image.affine)
        for contrast, image in images.items()
    }


def noise_sd(image_DHW: NDArray[np.float32]) -> float:
    """Standard deviation of the noise of a signal, from differences of neighbours along all three axes at once.

    These are the finest Haar wavelets, in which tissue hardly shows; the median of their size is that of the noise
    (Coupe et al. 2010, doi 10.1016/j.media.2010.03.001). Voxels in the brighter part of the head are looked at, where
    Rician noise is about normal. Of an image that was interpolated onto a finer grid, it is less than the noise.

    Returns:
        In the image's own unit; 0 where there is nothing to estimate it from.
    """
    positive = image_DHW[image_DHW > 0]
    if not positive.size:
        return 0.0
    bright_DHW = ndimage.uniform_filter(image_DHW, 3) > positive.mean()
    inside_DHW = ndimage.minimum_filter(bright_DHW, 2, origin=-1)[:-1, :-1, :-1]  # all eight voxels of a difference
    wavelets_DHW = np.diff(np.diff(np.diff(image_DHW, axis=0), axis=1), axis=2) / np.sqrt(8)
    values = np.abs(wavelets_DHW[inside_DHW])
    return float(_SD_PER_MAD * np.median(values)) if values.size else 0.0


def _non_local_means(image: nib.Nifti1Image) -> NDArray[np.float32]:
    """Each voxel the mean of those around whose patches are like its own.

    Buades et al. 2005, doi 10.1109/CVPR.2005.38. Of methods that keep edges it keeps the most of lesions for the noise
    that it takes out (docs/how-to/preprocess.md).
    """
    from skimage.restoration import denoise_nl_means  # slow to import

    image_DHW = np.asarray(image.dataobj, dtype=np.float32)
    sd = noise_sd(image_DHW)
    if sd == 0:
        return image_DHW
    smooth_DHW = denoise_nl_means(
        image_DHW, _PATCH, _REACH, h=_STRENGTH * sd, sigma=sd, fast_mode=True, preserve_range=True
    )
    faintest = np.float32(1e-3 * sd)  # what was signal stays signal
    return np.where(image_DHW > 0, np.maximum(smooth_DHW, faintest), 0).astype(np.float32)
