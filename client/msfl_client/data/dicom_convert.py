"""One volume by dcm2niix, held against what its DICOM files say."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from msfl_client.data.bids_names import is_nifti
from msfl_client.data.dicom_stacks import Part, corners_mm

_LONGEST_S = 900
_OFF_MM = 0.1  # how far a corner of the volume may lie from where DICOM has it
# What dcm2niix says of a volume that is not as it was scanned. Its lines are not shown: they may name patients.
_COMPLAINTS = {
    r"interslice distance varies|missing images": "slices are missing",
    r"gantry|\btilt": "its slices are shifted against one another",
    r"unable to (?:determine|decode|read)|unsupported transfer|corrupt|failed to decode": "its images cannot be read",
}


@dataclass(frozen=True)
class Converted:
    """A volume.

    Attributes:
        voxels_IJK: as the scanner's numbers, whole where they are.
        affine: to RAS+ mm.
        sidecar: dcm2niix's JSON, which names the patient.
    """

    voxels_IJK: NDArray[Any]
    affine: NDArray[np.float64]
    sidecar: dict[str, Any]


def convert(part: Part, folder: Path) -> Converted | str:
    """The volume of a part, or why there is none.

    Args:
        part: without a fault.
        folder: a private one, for temporary files.
    """
    import dcm2niix

    with tempfile.TemporaryDirectory(dir=folder) as name:
        given, made = Path(name, "given"), Path(name, "made")
        given.mkdir()
        made.mkdir()
        for number, path in enumerate(dict.fromkeys(frame.path for frame in part.frames)):
            _link(given / f"{number:05d}.dcm", path.resolve())
        command = [dcm2niix.bin, "-b", "y", "-ba", "n", "-z", "n", "-f", "image", "-o", str(made), str(given)]
        try:
            done = subprocess.run(command, capture_output=True, check=False, timeout=_LONGEST_S)
        except subprocess.TimeoutExpired:
            return f"dcm2niix did not end within {_LONGEST_S} s"
        if done.returncode < 0:
            return "dcm2niix broke down on it"
        said = _complaints(done.stdout + done.stderr, name)
        for pattern, meaning in _COMPLAINTS.items():
            if re.search(pattern, said):
                return f"{meaning}, as dcm2niix says"
        images = sorted(path for path in made.iterdir() if is_nifti(path.name))
        if len(images) != 1:
            return f"dcm2niix makes {len(images) or 'no'} volumes of it; expected one"
        return _read(images[0], part)


def _complaints(output: bytes, folder: str) -> str:
    lines = output.decode(errors="replace").replace(folder, "").lower().splitlines()
    return "\n".join(line for line in lines if re.match(r"\W*(?:warning|error|unable|unsupported|failed)", line))


def _read(path: Path, part: Part) -> Converted | str:
    image = nib.load(path)
    if sorted(image.shape) != sorted((*part.frames[0].size, len(part.frames))):
        return f"dcm2niix makes {'x'.join(map(str, image.shape))} voxels of its {len(part.frames)} slices"
    if not _same_corners(corners_mm(part), _corners_of(image)):
        return "the volume that dcm2niix makes does not lie where the DICOM files say"
    beside = path.with_suffix(".json")
    sidecar = json.loads(beside.read_text(encoding="utf-8", errors="replace")) if beside.is_file() else {}
    voxels = np.asarray(image.dataobj)
    kept = voxels if voxels.dtype.kind in "iu" else voxels.astype(np.float32)
    return Converted(kept, np.asarray(image.affine, np.float64), sidecar)


def _corners_of(image: Any) -> NDArray[np.float64]:
    ends = np.array(image.shape) - 1
    indices = np.array([(i, j, k) for i in (0, 1) for j in (0, 1) for k in (0, 1)]) * ends
    corners: NDArray[np.float64] = nib.affines.apply_affine(image.affine, indices)
    return corners


def _same_corners(expected: NDArray[np.float64], found: NDArray[np.float64]) -> bool:
    apart = np.linalg.norm(expected[:, None] - found[None], axis=2)
    return bool((apart.min(axis=1) <= _OFF_MM).all() and (apart.min(axis=0) <= _OFF_MM).all())


def _link(place: Path, target: Path) -> None:
    try:
        place.symlink_to(target)
    except OSError:  # a file system without links
        shutil.copyfile(target, place)
