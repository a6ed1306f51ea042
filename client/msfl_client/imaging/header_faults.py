"""What a NIfTI header says that cannot be, read before nibabel mends it: nibabel takes a voxel size of 0 for 1 mm."""

from __future__ import annotations

from typing import Any

import nibabel as nib
import numpy as np

_FIRST_VOXEL = {348: 352, 540: 544}  # bytes, by the header's own size
_MOST_DIMENSIONS = 7


def header_fault(raw: bytes, is_nifti1: bool) -> str | None:
    """The first fault that leaves the voxels, or their size, unknown; None where there is none.

    Args:
        raw: the file, unpacked.
        is_nifti1: or NIfTI-2.
    """
    kind: Any = nib.Nifti1Header if is_nifti1 else nib.Nifti2Header
    size = kind.sizeof_hdr
    header = kind(raw[:size], check=False)
    num = int(header["dim"][0])
    if not 1 <= num <= _MOST_DIMENSIONS:
        return f"its header announces {num} dimensions; it is damaged"
    shape = [int(length) for length in header["dim"][1 : num + 1]]
    if min(shape) < 1:
        return f"its header announces {' x '.join(map(str, shape))} voxels; it is damaged"
    offset = float(header["vox_offset"])
    if bytes(header["magic"]).startswith(b"n+") and not offset >= _FIRST_VOXEL[size]:
        return f"its vox_offset is {offset:g}, within its header: expected {_FIRST_VOXEL[size]} or more"
    sizes_mm = np.asarray(header["pixdim"][1:4], np.float64)
    if int(header["sform_code"]) <= 0 and not says_sizes(raw, is_nifti1):
        shown = " x ".join(f"{length:g}" for length in sizes_mm)
        return f"its voxel sizes (pixdim) are {shown} mm, and it has no sform to tell them; export it again from DICOM"
    return None


def says_sizes(raw: bytes, is_nifti1: bool) -> bool:
    """Whether its `pixdim` says how large voxels are."""
    kind: Any = nib.Nifti1Header if is_nifti1 else nib.Nifti2Header
    sizes_mm = np.asarray(kind(raw[: kind.sizeof_hdr], check=False)["pixdim"][1:4], np.float64)
    return bool((np.isfinite(sizes_mm) & (sizes_mm != 0)).all())
