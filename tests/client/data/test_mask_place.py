"""A lesion mask with left and right exchanged, which lies in the brain all the same."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from tests.brains import brain, thin

from msfl_client.data.mask_place import mask_side_rule
from msfl_client.imaging.fit import ThinImage
from msfl_client.imaging.volumes import Volume

AROUND = np.array([30, 50, 45]), np.array([34, 70, 40])  # voxels of 2 mm, right of the middle


@pytest.fixture(scope="module")
def flair() -> nib.Nifti1Image:
    return brain("FLAIR")


def lesions(flair: nib.Nifti1Image) -> NDArray[np.bool_]:
    index = np.indices(flair.shape)
    balls = [((index - at[:, None, None, None]) ** 2).sum(axis=0) < 9 for at in AROUND]
    return np.logical_or(*balls) & (np.asarray(flair.dataobj) > 0)


def bright(flair: nib.Nifti1Image, where: NDArray[np.bool_]) -> ThinImage:
    voxels = np.asarray(flair.dataobj, np.float32)
    return thin(nib.Nifti1Image(np.where(where, voxels.max(), voxels), flair.affine))


def rules(mask: NDArray[np.bool_], on: ThinImage, affine: NDArray[np.float64]) -> list[str]:
    volume = Volume(mask.astype(np.float32), np.asarray(affine, np.float64), None, squeezed=False)
    return [f"{found.level} {found.rule}" for found in mask_side_rule(volume, on)]


def test_a_mirrored_mask_is_refused_and_no_other(flair: nib.Nifti1Image) -> None:
    mask = lesions(flair)
    image = bright(flair, mask)
    assert rules(mask, image, flair.affine) == []
    assert rules(mask[::-1], image, flair.affine) == ["fail mask-side"]
    assert rules(np.zeros_like(mask), image, flair.affine) == []
    both = bright(flair, mask | mask[::-1])  # nobody could tell
    assert rules(mask[::-1], both, flair.affine) == []
