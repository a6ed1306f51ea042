from __future__ import annotations

import gzip
import os

import nibabel as nib
import numpy as np
import pytest

from msfl_client.imaging.volumes import open_nifti, read_volume
from msfl_common.errors import CaseError


@pytest.fixture
def whole(tmp_path):
    path = tmp_path / "image.nii.gz"
    voxels = np.random.default_rng(0).integers(0, 1000, (11, 12, 13)).astype(np.int16)
    nib.save(nib.Nifti1Image(voxels, np.diag([1.0, 2.0, 3.0, 1.0])), path)
    return path


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("extension", [".nii", ".nii.gz"])
def test_reads_what_nibabel_wrote(tmp_path, kind, extension):
    path = tmp_path / f"image{extension}"
    voxels = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    nib.save(kind(voxels, affine), path)
    volume = read_volume(path)
    assert volume.shape == (2, 3, 4)
    assert volume.voxels_IJK.dtype == np.float32
    np.testing.assert_array_equal(volume.voxels_IJK, voxels)
    np.testing.assert_array_equal(volume.affine, affine)


def test_applies_slope_and_intercept(tmp_path):
    path = tmp_path / "image.nii"
    image = nib.Nifti1Image(np.full((2, 2, 2), 10, np.int16), np.eye(4))
    image.header.set_slope_inter(0.5, 3)
    nib.save(image, path)
    np.testing.assert_allclose(read_volume(path).voxels_IJK, np.asarray(nib.load(path).dataobj))


def test_trailing_dimension_of_one_is_dropped(tmp_path):
    nib.save(nib.Nifti1Image(np.zeros((2, 3, 4, 1, 1)), np.eye(4)), tmp_path / "a.nii")
    volume = read_volume(tmp_path / "a.nii")
    assert volume.shape == (2, 3, 4)
    assert volume.squeezed


@pytest.mark.parametrize("kept", [1, 20, 200, -1, -5, -9])
def test_truncated_gzip_is_refused_even_when_only_its_end_is_gone(whole, kept):
    whole.write_bytes(whole.read_bytes()[:kept])
    with pytest.raises(CaseError, match=r"truncated or damaged gzip|not gzip"):
        open_nifti(whole)


def test_flipped_bit_is_found_by_the_checksum(whole):
    raw = bytearray(whole.read_bytes())
    raw[len(raw) // 2] ^= 1
    whole.write_bytes(raw)
    with pytest.raises(CaseError, match="truncated or damaged gzip"):
        open_nifti(whole)


def test_truncated_uncompressed_says_how_much_is_there(whole):
    plain = whole.with_suffix("")
    plain.write_bytes(gzip.decompress(whole.read_bytes())[:-100])
    with pytest.raises(CaseError, match=r"truncated: its header announces 3,784 bytes, it holds 3,684"):
        open_nifti(plain)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.nii.gz", b"", "empty"),
        ("a.nii", b"", "empty"),
        ("a.nii.gz", b"hello, this is no image\n", "holds text"),
        ("a.nii.gz", b"\n<!DOCTYPE html><html>404</html>", "web page"),
        ("a.nii.gz", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
        ("a.nii.gz", bytes(range(256)), "not gzip-compressed"),
        ("a.nii.gz", gzip.compress(b"text within gzip", mtime=0), "not a NIfTI file"),
        ("a.nii.gz", gzip.compress(bytes(400), mtime=0), "not a NIfTI file"),
        ("a.nii", b"abc", "not a NIfTI file"),
        ("a.nii", gzip.compress(b"x", mtime=0), r"rename it to \.nii\.gz"),
    ],
)
def test_says_what_a_wrong_file_is(tmp_path, name, content, expected):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CaseError, match=expected) as caught:
        open_nifti(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_uncompressed_under_a_compressed_name(whole):
    whole.write_bytes(gzip.decompress(whole.read_bytes()))
    with pytest.raises(CaseError, match=r"rename it to \.nii$"):
        open_nifti(whole)


@pytest.mark.parametrize(
    ("voxels", "expected"),
    [
        (np.zeros((4, 4, 4, 2)), r"expected a 3D image, found 4D \(4 x 4 x 4 x 2\)"),
        (np.zeros((4, 4)), "found 2D"),
        (np.zeros((4, 4, 4), np.complex64), "complex numbers"),
        (np.zeros((4, 4, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")]), "colours"),
    ],
)
def test_other_than_one_real_number_per_voxel_is_refused(tmp_path, voxels, expected):
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "a.nii.gz")
    with pytest.raises(CaseError, match=expected):
        read_volume(tmp_path / "a.nii.gz")


def test_announced_size_beyond_memory_is_refused_without_taking_it(whole):
    raw = bytearray(gzip.decompress(whole.read_bytes()))
    raw[42:48] = np.array([30000, 30000, 30000], "<i2").tobytes()
    whole.write_bytes(gzip.compress(bytes(raw), mtime=0))
    with pytest.raises(CaseError, match="truncated"):
        read_volume(whole)


def test_a_pipe_is_refused_before_it_is_waited_for(tmp_path):
    os.mkfifo(tmp_path / "T1w.nii.gz")
    with pytest.raises(CaseError, match="a pipe or a device, and no file"):
        read_volume(tmp_path / "T1w.nii.gz")
