"""Files that say nothing of a patient: fresh headers, no text, no time.

Legend: I/J/K voxels of a file, whatever its orientation.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
from numpy.typing import NDArray

from msfl_common.system.files import write_bytes

_KEPT = (
    "Manufacturer",
    "ManufacturersModelName",
    "MagneticFieldStrength",
    "MRAcquisitionType",
    "EchoTime",
    "RepetitionTime",
    "InversionTime",
    "FlipAngle",
    "SliceThickness",
)
_NATIVE, _MNI152 = 2, 4  # NIfTI's codes of what the coordinates mean


def save_image(path: Path, voxels_IJK: NDArray[Any], affine: NDArray[Any], in_mni: bool = False) -> None:
    """Write a NIfTI file with a fresh header: nothing of a source's is carried over but its position in space.

    The same voxels and affine give the same bytes: gzip stores neither name nor time.
    """
    image = nib.Nifti1Image(voxels_IJK, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, _MNI152 if in_mni else _NATIVE)
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", fileobj=buffer, mode="wb", mtime=0, compresslevel=6) as stream:
        stream.write(image.to_bytes())
    write_bytes(path, buffer.getvalue())


def clean_sidecar(sidecar: Mapping[str, Any]) -> dict[str, Any]:
    """What a BIDS sidecar may keep: the scanner and the sequence; no name, number, date, place or free text."""
    return {key: sidecar[key] for key in _KEPT if key in sidecar}
