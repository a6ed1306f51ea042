"""N4 bias correction: the slow change of brightness across an image that the coil makes."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray

from msfl_client.imaging.itk_images import of_nifti, to_itk

_WORKING_MM = 4.0  # the field is smooth: it is fitted on voxels about this large
_ITERATIONS = (50, 50, 50, 50)  # at most, of each level; the last has control points some 25 mm apart


def correct_bias(image: nib.Nifti1Image, brain_DHW: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Divide an image by its bias field: fitted in the brain on a coarse grid, evaluated on the image's own.

    Tustison et al. 2010, doi 10.1109/TMI.2010.2046908.

    Args:
        image: RAS, not negative.
        brain_DHW: the brain on its grid.

    Returns:
        The corrected voxels (D, H, W).
    """
    full = of_nifti(image)
    shrink = [max(1, round(float(_WORKING_MM / size))) for size in voxel_sizes(image.affine)]
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetNumberOfThreads(1)
    n4.SetMaximumNumberOfIterations(_ITERATIONS)
    mask = to_itk(brain_DHW.astype(np.uint8), image.affine)
    n4.Execute(sitk.Shrink(full, shrink), sitk.Shrink(mask, shrink))
    log_field = n4.GetLogBiasFieldAsImage(full)
    corrected_DHW: NDArray[np.float32] = sitk.GetArrayFromImage(full / sitk.Exp(log_field)).T
    return corrected_DHW
