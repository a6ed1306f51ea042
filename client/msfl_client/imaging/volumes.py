"""One NIfTI file, read whole and only when it is whole.

IJK are voxel indices as stored; world is RAS in mm.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from msfl_client.imaging.geometry import spacing_mm
from msfl_client.imaging.header_faults import header_fault, says_sizes
from msfl_common.errors import CaseError

_GZIP = b"\x1f\x8b"
_NIFTI1_HEADER_BYTES = 348


@dataclass(frozen=True)
class Volume:
    """A 3D image.

    Attributes:
        voxels_IJK: values, float32.
        affine: 4x4, voxel index to RAS mm.
        header: nibabel's header.
        squeezed: whether the file had trailing dimensions of size 1.
    """

    voxels_IJK: NDArray[np.float32]
    affine: NDArray[np.float64]
    header: Any
    squeezed: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along I, J, K."""
        i, j, k = self.voxels_IJK.shape
        return i, j, k

    def filled(self) -> Volume:
        """The volume with 0 for every voxel that is no finite number."""
        finite = np.isfinite(self.voxels_IJK)
        return self if finite.all() else replace(self, voxels_IJK=np.where(finite, self.voxels_IJK, np.float32(0)))


def open_nifti(path: Path) -> Any:
    """Read a `.nii` or `.nii.gz` file into memory, to its last byte and, when gzipped, its checksum.

    nibabel alone stops at the last voxel and takes a file whose end is missing or damaged.

    Returns:
        nibabel's Nifti1Image or Nifti2Image.

    Raises:
        CaseError: the content is not a whole NIfTI file; says what it is instead where that can be told.
        OSError: the file cannot be opened or read from disk.
    """
    raw = _content(path)
    try:
        is_nifti1 = _NIFTI1_HEADER_BYTES in (struct.unpack(order + "i", raw[:4])[0] for order in ("<", ">"))
        fault = header_fault(raw, is_nifti1)
        if fault:
            raise CaseError(fault)
        image = (nib.Nifti1Image if is_nifti1 else nib.Nifti2Image).from_bytes(raw)
        if not says_sizes(raw, is_nifti1):
            image.header["pixdim"][1:4] = spacing_mm(image.affine)
        needed = int(image.dataobj.offset) + image.get_data_dtype().itemsize * int(np.prod(image.shape, dtype=np.int64))
    except CaseError:
        raise
    except Exception as error:  # nibabel raises a dozen kinds on a damaged header
        raise CaseError(f"not a NIfTI file: {' '.join(str(error).split()) or type(error).__name__}") from None
    if len(raw) < needed:
        raise CaseError(f"truncated: its header announces {needed:,} bytes, it holds {len(raw):,}")
    return image


def to_volume(image: Any) -> Volume:
    """Take the voxels as float32; trailing dimensions of size 1 are dropped.

    Raises:
        CaseError: not three dimensions, or not one real number per voxel.
    """
    shape = tuple(int(size) for size in image.shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3:
        raise CaseError(f"expected a 3D image, found {len(image.shape)}D ({' x '.join(map(str, image.shape))})")
    kind = image.get_data_dtype()
    if kind.kind not in "iuf":
        what = "colours" if kind.fields else "complex numbers" if kind.kind == "c" else str(kind)
        raise CaseError(f"expected one real number per voxel, found {what}")
    with np.errstate(over="ignore", invalid="ignore"):
        voxels = image.get_fdata(dtype=np.float32, caching="unchanged").reshape(shape)
    return Volume(voxels, np.asarray(image.affine, np.float64), image.header, len(image.shape) > 3)


def read_volume(path: Path) -> Volume:
    """`open_nifti` and `to_volume` in one.

    Raises:
        CaseError: not a whole NIfTI file, or no 3D image of real numbers.
        OSError: the file cannot be opened or read from disk.
    """
    return to_volume(open_nifti(path))


def _content(path: Path) -> bytes:
    """The file's bytes, unpacked when its name says gzip."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise CaseError("a pipe or a device, and no file")
    raw = path.read_bytes()
    if not raw:
        raise CaseError("the file is empty (0 bytes)")
    zipped = path.name.lower().endswith(".gz")
    if zipped != raw.startswith(_GZIP):
        raise CaseError(_what_it_is(raw, zipped))
    if not zipped:
        return raw
    try:
        return gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise CaseError(f"truncated or damaged gzip file: {error}") from None


def _what_it_is(raw: bytes, named_zipped: bool) -> str:
    start = raw[:256].lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html", b"<?xml")):
        return "holds a web page, not an image; its download failed"
    if start.startswith(b"version https://git-lfs"):
        return "holds a git-lfs pointer, not the image; run `git lfs pull`"
    if not named_zipped:
        return "named .nii, but gzip-compressed; rename it to .nii.gz"
    if raw[344:348] in (b"n+1\0", b"ni1\0") or raw[4:8] in (b"n+2\0", b"ni2\0"):
        return "named .nii.gz, but not compressed; rename it to .nii"
    if all(32 <= byte < 127 or byte in b"\r\n\t" for byte in raw[:256]):
        return "holds text, not an image"
    return "not gzip-compressed, as its name says"
