"""What is told of one image for a network's plan."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from msfl_client.data.bids import Case
from msfl_client.data.fingerprint import fingerprint_of

AFFINE = np.diag([1.0, 1.0, 3.0, 1.0])


def saved(path: Path, voxels: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    nib.save(nib.Nifti1Image(voxels, affine), path)
    return path


def test_voxels_size_and_brightness_are_those_of_the_image(tmp_path: Path) -> None:
    image, mask = np.zeros((30, 30, 12), np.float32), np.zeros((30, 30, 12), np.uint8)
    image[5:25, 2:28, 1:11] = np.random.default_rng(0).normal(100, 10, (20, 26, 10))
    image[10:14, 10:14, 5], mask[10:14, 10:14, 5] = 130, 1
    flair, lesions = saved(tmp_path / "flair.nii.gz", image), saved(tmp_path / "mask.nii.gz", mask)
    t1 = saved(tmp_path / "t1.nii.gz", image, np.eye(4))
    found = fingerprint_of(Case(0, "sub-1", None, {"T1w": t1, "FLAIR": flair}, lesions, None))
    assert found is not None
    assert found.voxel_mm == pytest.approx(3 ** (1 / 3))
    assert (found.slice_mm, found.extent_mm) == (3.0, 20.0)
    inside = image[image > 0]
    assert found.lesion_sd == pytest.approx((130 - inside.mean()) / inside.std(), rel=1e-4)
    elsewhere = saved(tmp_path / "moved.nii.gz", mask, np.diag([1.0, 1.0, 2.0, 1.0]))
    moved = fingerprint_of(Case(0, "sub-1", None, {"FLAIR": flair}, elsewhere, None))
    assert moved is not None
    assert moved.lesion_sd is None


@pytest.mark.parametrize("is_whole", [True, False])
def test_an_image_that_tells_nothing_has_none(tmp_path: Path, is_whole: bool) -> None:
    path = saved(tmp_path / "flair.nii.gz", np.zeros((8, 8, 8), np.float32))
    if not is_whole:
        path.write_bytes(path.read_bytes()[:-9])
    assert fingerprint_of(Case(0, "sub-1", None, {"FLAIR": path}, None, None)) is None
