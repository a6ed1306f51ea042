"""What is measured of a case that was just preprocessed.

Legend: D/H/W voxels.
"""

from __future__ import annotations

from functools import lru_cache

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray
from scipy import ndimage

from msfl_client.data.qc_record import Quality
from msfl_client.imaging.common_space import CommonSpaceCase
from msfl_client.imaging.masks import Mask
from msfl_client.imaging.registration import load_template, template_brain
from msfl_client.imaging.resampling import resample
from msfl_client.imaging.skull_strip_detection import dice
from msfl_client.preprocessing.pipeline import PreprocessedCase

_LAPLACIAN = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=np.float32)
_PURE = 0.8  # share of a tissue in the template from which on a voxel counts as that tissue


def measure_quality(done: PreprocessedCase) -> Quality:
    """The figures of a case that was just preprocessed."""
    case = done.case
    coverage, overlap = fit_to_template(case)
    own_mm3 = abs(np.linalg.det(done.native[done.anchor].affine[:3, :3]))
    similarities = {name: found.similarity for name, found in done.to_anchor.items()}
    return Quality(
        brain_ml=round(float(done.native_brains[done.anchor].sum() * own_mm3) / 1000, 1),
        coverage=round(coverage, 4),
        template_overlap=round(overlap, 4),
        template_similarity=_rounded(done.to_template.similarity),
        similarity={name: round(value, 4) for name, value in similarities.items() if value is not None},
        snr={name: _snr(image, done.native_brains[name]) for name, image in done.native.items()},
        white_to_grey={name: _white_to_grey(case, image_DHW) for name, image_DHW in case.images_DHW.items()},
    )


def fit_to_template(case: CommonSpaceCase) -> tuple[float, float]:
    """Share of the template's brain that the case's covers, and the Dice coefficient of the two."""
    template_DHW = template_brain(float(voxel_sizes(case.affine)[0]))
    return float((case.brain_DHW & template_DHW).sum() / template_DHW.sum()), dice(case.brain_DHW, template_DHW)


def _snr(image: nib.Nifti1Image, brain_DHW: Mask) -> float:
    """Median brightness of the brain over the standard deviation of the noise in the plane of the slices.

    Noise by Immerkaer 1996 (doi 10.1006/cviu.1996.0060), the spread taken from the median absolute deviation, so
    that the edges of tissues count little.
    """
    voxels_DHW = np.asarray(image.dataobj, dtype=np.float32)
    across = int(np.argmax(voxel_sizes(image.affine)))
    rough_DHW = ndimage.convolve(voxels_DHW, np.expand_dims(_LAPLACIAN, across))[brain_DHW]
    noise = 1.4826 * float(np.median(np.abs(rough_DHW - np.median(rough_DHW)))) / 6
    return round(float(np.median(voxels_DHW[brain_DHW])) / max(noise, 1e-6), 2)


def _white_to_grey(case: CommonSpaceCase, image_DHW: NDArray[np.float32]) -> float:
    """Median over the template's white matter by that over its grey matter."""
    grey_DHW, white_DHW = (mask_DHW & case.brain_DHW for mask_DHW in tissues(float(voxel_sizes(case.affine)[0])))
    return round(float(np.median(image_DHW[white_DHW]) / max(float(np.median(image_DHW[grey_DHW])), 1.0)), 4)


@lru_cache(maxsize=2)
def tissues(spacing_mm: float) -> tuple[Mask, Mask]:
    """Where the template is grey matter and where it is white."""
    from nilearn.datasets import load_mni152_gm_template, load_mni152_wm_template

    grid = load_template(spacing_mm)
    grey, white = (
        resample(load(resolution=1), (grid.shape, grid.affine)) >= _PURE
        for load in (load_mni152_gm_template, load_mni152_wm_template)
    )
    return grey, white


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
