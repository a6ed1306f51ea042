"""Which cell of a survey a patient's lesion load is in."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from msfl_client.clinical.survey import _lesion_ml


def test_a_voxel_is_as_large_as_the_image_lies_in_space_says(tmp_path: Path) -> None:
    voxels_IJK = np.zeros((10, 10, 10), np.uint8)
    voxels_IJK[2:7, 2:7, 2:7] = 1
    image = nib.Nifti1Image(voxels_IJK, np.diag([2.0, 2.0, 2.0, 1.0]))
    nib.save(image, path := tmp_path / "mask.nii.gz")
    assert _lesion_ml(path) == pytest.approx(1.0)
    image.header["pixdim"][1:4] = 0  # of a tool that writes sizes in the transform alone
    nib.save(image, path)
    assert _lesion_ml(path) == pytest.approx(1.0)


def test_a_mask_that_is_cut_off_has_no_load(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.ones((9, 9, 9), np.uint8), np.eye(4)), path := tmp_path / "mask.nii.gz")
    path.write_bytes(path.read_bytes()[:-9])
    assert _lesion_ml(path) is None
