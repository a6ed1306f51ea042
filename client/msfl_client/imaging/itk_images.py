"""Between nibabel, whose millimetres are RAS, and SimpleITK, whose millimetres are LPS."""

from __future__ import annotations

from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""RAS millimetres to LPS millimetres, and back."""


def to_itk(voxels_IJK: NDArray[Any], affine: NDArray[np.float64]) -> sitk.Image:
    """An ITK image of the same voxels at the same place."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(voxels_IJK.T))
    spacing_mm = voxel_sizes(affine)
    lps = LPS @ affine
    image.SetSpacing([float(size) for size in spacing_mm])
    image.SetDirection((lps[:3, :3] / spacing_mm).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image


def of_nifti(image: nib.Nifti1Image) -> sitk.Image:
    """`to_itk` of a nibabel image, float32."""
    return to_itk(np.asarray(image.dataobj, dtype=np.float32), image.affine)


def matrix_of(transform: sitk.Transform) -> NDArray[np.float64]:
    """An affine transform of ITK as a 4 x 4 matrix on RAS millimetres.

    Derived from where it puts the origin and the three unit points, so that any kind and any centre will do.
    """
    points = np.vstack([np.zeros(3), np.eye(3)])
    moved = np.array([transform.TransformPoint(point.tolist()) for point in points])
    matrix = np.eye(4)
    matrix[:3, :3] = (moved[1:] - moved[0]).T
    matrix[:3, 3] = moved[0]
    result: NDArray[np.float64] = LPS @ matrix @ LPS
    return result
