"""Brains on the template's anatomy, no two alike, in two contrasts: where they lie is known."""

from __future__ import annotations

from functools import lru_cache

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from msfl_client.imaging.alignment import Alignment
from msfl_client.imaging.fit import Fit, ThinImage, thin_image
from msfl_client.imaging.registration import load_template, template_brain


@lru_cache(maxsize=8)
def brain(contrast: str, head: int = 0, spacing_mm: tuple[float, float, float] = (2.0, 2.0, 2.0)) -> nib.Nifti1Image:
    """The template, bent into a head that is not symmetric; a FLAIR of it is dark where fluid is, and has lesions."""
    template = load_template(2.0)
    voxels = np.asarray(template.dataobj, np.float32)
    noise = np.random.default_rng(head).normal(size=(3, *voxels.shape))
    bends = np.stack([ndimage.gaussian_filter(part, 6) for part in noise])
    voxels = ndimage.map_coordinates(voxels, np.indices(voxels.shape) + 2.5 * bends / bends.std(), order=1)
    if contrast == "FLAIR":
        lesions = ndimage.gaussian_filter(noise[0], 1.5) > 0.19
        voxels = np.where(voxels > 0.35, 1.2 - 0.5 * voxels + 0.6 * lesions, 0.25) * (voxels > 0)
    step = [round(size / 2) for size in spacing_mm]
    affine = template.affine @ np.diag([*step, 1])
    thick = ndimage.uniform_filter(voxels, step)[:: step[0], :: step[1], :: step[2]]
    kept = voxels[:: step[0], :: step[1], :: step[2]] > 0
    return nib.Nifti1Image((thick * kept * 1000).astype(np.float32), affine)


@lru_cache
def crooked_template(spacing_mm: float) -> NDArray[np.float32]:
    """The template, bent so that left differs from right, as in a head; it is 0 outside of the template's brain.

    A contrast of a symmetric head may be mirrored, and seconds go into looking for that.
    """
    voxels = np.asarray(load_template(spacing_mm).dataobj, np.float32)
    noise = np.random.default_rng(0).normal(size=(3, *voxels.shape))
    bends = np.stack([ndimage.gaussian_filter(part, 12 / spacing_mm) for part in noise])
    bent = ndimage.map_coordinates(voxels, np.indices(voxels.shape) + 5 / spacing_mm * bends / bends.std(), order=1)
    return np.asarray(bent * template_brain(spacing_mm), np.float32)


def thin(image: nib.Nifti1Image) -> ThinImage:
    found = thin_image(image)
    assert found is not None
    return found


def displaced(image: ThinImage, degrees: float, mm: float) -> ThinImage:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(np.array([1, -2, 2]) / 3 * degrees, degrees=True).as_matrix()
    matrix[:3, 3] = image.centre - matrix[:3, :3] @ image.centre + mm * np.array([2, 2, -1]) / 3
    return image.moved(matrix)


def residual_mm(found: Alignment, truth: ThinImage, moving: ThinImage) -> float:
    """Root mean square distance of where the brain was brought to from where it belongs."""
    to_truth = found.matrix @ moving.affine @ np.linalg.inv(truth.affine)
    return Fit(truth, truth).displacement_mm(to_truth)
