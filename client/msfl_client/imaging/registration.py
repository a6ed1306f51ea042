"""Linear registration: contrasts to each other (6 degrees of freedom), a brain to the template (12).

Every result is one 4 x 4 matrix on RAS millimetres, so chains are products and the way back is the inverse.
Mattes mutual information, coarse to fine, in one thread with a fixed seed: the same images give the same matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from nibabel.spaces import vox2out_vox
from numpy.typing import NDArray

from msfl_client.imaging.itk_images import matrix_of, of_nifti, to_itk
from msfl_client.imaging.resampling import resample
from msfl_common.errors import CaseError

# ITK adds up in the order in which its threads end, so that several would give another last digit each time.
sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)

_SEED = 1
_HISTOGRAM_BINS = 32
_WORKING_MM = 2.0  # images are compared on a grid this fine
_DILATE_MM = 10.0  # skull and scalp around the brain help to align contrasts, the neck does not
_SHRINK, _SMOOTH_MM = (4, 2, 1), (4.0, 2.0, 1.0)


@dataclass(frozen=True)
class Registration:
    """Where an image was found to lie.

    Attributes:
        matrix: 4 x 4, millimetres of the moving image to millimetres of the fixed one.
        similarity: mutual information of the two at the end, nats; None where nothing had to be found.
    """

    matrix: NDArray[np.float64]
    similarity: float | None


@lru_cache(maxsize=4)
def load_template(spacing_mm: float) -> nib.Nifti1Image:
    """The MNI152 T1 template, brain alone: above 0 in the brain, 0 outside."""
    from nilearn.datasets import load_mni152_template

    finest = load_mni152_template(resolution=1)
    grid = vox2out_vox(finest, (spacing_mm,) * 3)
    return nib.Nifti1Image(np.where(template_brain(spacing_mm), resample(finest, grid), 0), grid[1])


@lru_cache(maxsize=4)
def template_brain(spacing_mm: float) -> NDArray[np.bool_]:
    """The template's brain with its ventricles, on the grid of `load_template`."""
    from nilearn.datasets import load_mni152_brain_mask

    mask = load_mni152_brain_mask(resolution=1)
    finest = nib.Nifti1Image(np.asarray(mask.dataobj, dtype=np.float32), mask.affine)
    brain_DHW: NDArray[np.bool_] = resample(finest, vox2out_vox(finest, (spacing_mm,) * 3)) >= 0.5
    return brain_DHW


def register_rigid(moving: nib.Nifti1Image, fixed: nib.Nifti1Image, brain_DHW: NDArray[np.bool_]) -> Registration:
    """Align two contrasts of one head, which lie nearly aligned as the scanner stored them.

    Args:
        moving: the image to place, RAS.
        fixed: the image to place it on, RAS.
        brain_DHW: the brain on the grid of `fixed`.

    Raises:
        CaseError: they could not be registered.
    """
    target = _isotropic(of_nifti(fixed), sitk.sitkLinear)
    region = _isotropic(to_itk(brain_DHW.astype(np.uint8), fixed.affine), sitk.sitkNearestNeighbor)
    region = sitk.BinaryDilate(region, [round(_DILATE_MM / _WORKING_MM)] * 3)
    transform = sitk.Euler3DTransform()
    transform.SetCenter(_centre(region))
    return _align(target, of_nifti(moving), region, [transform], sampled=0.2)


def register_to_template(brain: nib.Nifti1Image, brain_DHW: NDArray[np.bool_]) -> Registration:
    """Place a brain on the MNI152 template: centres of mass first, then 7 and 12 degrees of freedom.

    Args:
        brain: the anchor contrast, RAS; what lies outside of the brain is ignored.
        brain_DHW: the brain on its grid.

    Raises:
        CaseError: it could not be registered.
    """
    target = of_nifti(load_template(_WORKING_MM))
    region = to_itk(template_brain(_WORKING_MM).astype(np.uint8), load_template(_WORKING_MM).affine)
    region = sitk.BinaryDilate(region, [2, 2, 2])
    inside = to_itk(np.where(brain_DHW, np.asarray(brain.dataobj, dtype=np.float32), 0), brain.affine)
    own = to_itk(brain_DHW.astype(np.uint8), brain.affine)
    similar = sitk.Similarity3DTransform()
    similar.SetCenter(_centre(region))
    similar.SetTranslation([float(a - b) for a, b in zip(_centre(own), _centre(region), strict=True)])
    return _align(target, inside, region, [similar, sitk.AffineTransform(3)], sampled=0.2)


def _align(
    fixed: sitk.Image, moving: sitk.Image, region: sitk.Image, stages: list[Any], sampled: float
) -> Registration:
    """Each stage starts where the one before ended; the first transform says where to start."""
    similarity = 0.0
    transform = stages[0]
    for number, stage in enumerate(stages):
        if number:
            stage.SetCenter(transform.GetCenter())
            stage.SetMatrix(transform.GetMatrix())
            stage.SetTranslation(transform.GetTranslation())
        method = sitk.ImageRegistrationMethod()
        method.SetMetricAsMattesMutualInformation(_HISTOGRAM_BINS)
        method.SetMetricSamplingStrategy(method.RANDOM)
        method.SetMetricSamplingPercentage(sampled, _SEED)
        method.SetMetricFixedMask(region)
        method.SetInterpolator(sitk.sitkLinear)
        method.SetOptimizerAsRegularStepGradientDescent(
            learningRate=2.0, minStep=1e-3, numberOfIterations=150, relaxationFactor=0.6
        )
        method.SetOptimizerScalesFromPhysicalShift()
        method.SetShrinkFactorsPerLevel(_SHRINK)
        method.SetSmoothingSigmasPerLevel(_SMOOTH_MM)
        method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
        method.SetInitialTransform(stage, inPlace=True)
        try:
            method.Execute(fixed, moving)
        except RuntimeError as error:  # ITK's own, many lines long; the last one says it
            raise CaseError(f"could not be registered: {str(error).strip().splitlines()[-1].strip()}") from None
        similarity = -float(method.GetMetricValue())
        transform = stage
    return Registration(np.linalg.inv(matrix_of(transform)), similarity)


def _isotropic(image: sitk.Image, interpolator: int) -> sitk.Image:
    """The same field of view at `_WORKING_MM`."""
    spacing_mm, size = np.array(image.GetSpacing()), np.array(image.GetSize())
    coarse = [max(1, round(float(extent) / _WORKING_MM)) for extent in spacing_mm * size]
    first = image.TransformContinuousIndexToPhysicalPoint(
        [float(value) for value in (_WORKING_MM / spacing_mm - 1) / 2]
    )
    return sitk.Resample(
        image, coarse, sitk.Transform(), interpolator, first, [_WORKING_MM] * 3, image.GetDirection(), 0.0
    )


def _centre(mask: sitk.Image) -> tuple[float, ...]:
    """Centre of mass of a mask, LPS mm."""
    statistics = sitk.LabelShapeStatisticsImageFilter()
    statistics.Execute(mask)
    return tuple(statistics.GetCentroid(1))
