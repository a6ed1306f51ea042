"""The BIDS file-name grammar, as far as structural MRI needs it: `sub-01_ses-2_acq-3d_FLAIR.nii.gz`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from msfl_common.system.reading import read_mapping

LESION, NEW_LESION = "lesion", "newlesion"
MASKS = {LESION: "lesion mask", NEW_LESION: "mask of new lesions"}
"""Labels of masks, of all lesions of a visit and of those that appeared since the visit before; and in words."""

_NO_AGENT = {"", "no", "none", "n/a", "without"}
_LABEL = r"[A-Za-z0-9+]+"
_SUBJECT = re.compile(rf"sub-{_LABEL}")
_SESSION = re.compile(rf"ses-{_LABEL}")
_IMAGE = re.compile(rf"((?:[a-z]+-{_LABEL}_)+)([A-Za-z0-9]+)((?i:\.nii(?:\.gz)?))")
_ENDING = re.compile(r"(?i:\.nii(?:\.gz)?)$")


@dataclass(frozen=True)
class ImageName:
    """A parsed file name.

    Attributes:
        path: the file.
        entities: its `key-label` pairs, in the order of the name: {"sub": "01", "ses": "2", "acq": "3d"}.
        suffix: what the file holds: "FLAIR", "mask".
        extension: ".nii" or ".nii.gz", as it is written: some scanners' tools write ".NII.GZ".
        enhanced: whether a contrast agent was given: by `ce-` in the name or ContrastBolusAgent in the sidecar.
    """

    path: Path
    entities: Mapping[str, str]
    suffix: str
    extension: str
    enhanced: bool = False

    def belongs_to(self, subject: str, visit: str | None) -> bool:
        """Whether the name carries this subject ("sub-01") and no other visit than the folder ("ses-2", or none)."""
        ses = self.entities.get("ses")
        return f"sub-{self.entities.get('sub')}" == subject and (ses is None or f"ses-{ses}" == visit)

    def is_mask_of(self, label: str) -> bool:
        """Whether it can only be such a mask: label-lesion_mask; label-lesion_roi or _dseg; desc-lesion_mask or _roi.

        A `_dseg` or `_mask` that does not say "lesion" may hold tissues or a brain.
        """
        if self.entities.get("label") == label:
            return self.suffix in {"mask", "roi", "dseg"}
        return "label" not in self.entities and self.entities.get("desc") == label and self.suffix in {"mask", "roi"}

    def is_plain_mask_of(self, label: str) -> bool:
        """Whether it is named as BIDS names such a mask today."""
        return self.suffix == "mask" and self.entities.get("label") == label


def is_subject(name: str) -> bool:
    """Whether `name` is a subject folder's: `sub-` and letters, digits or plus signs."""
    return _SUBJECT.fullmatch(name) is not None


def is_visit_folder(name: str) -> bool:
    """Whether `name` is a visit folder's."""
    return _SESSION.fullmatch(name) is not None


def is_nifti(name: str) -> bool:
    """Whether `name` ends like a NIfTI file, in small letters or capitals."""
    return _ENDING.search(name) is not None


def sidecar_of(path: Path) -> Path:
    """The JSON file beside an image."""
    return path.with_name(_ENDING.sub("", path.name) + ".json")


def parse_image_name(path: Path) -> ImageName | None:
    """Parse a NIfTI file's name; None when it does not follow the grammar."""
    match = _IMAGE.fullmatch(path.name)
    if match is None:
        return None
    pairs = [pair.split("-", 1) for pair in match[1].rstrip("_").split("_")]
    entities = dict(pairs)
    if len(entities) < len(pairs):
        return None
    enhanced = "ce" in entities or has_agent(sidecar_of(path))
    return ImageName(path, entities, match[2], match[3], enhanced)


def preferred_first(names: Sequence[ImageName]) -> list[ImageName]:
    """Sort candidates for the same contrast and visit; the first is the one that is used.

    The rule: without contrast agent first, then the name with the fewest entities, then the lowest
    `run-`, then alphabetically, then `.nii.gz` before `.nii`. Phase, real and imaginary parts are left out.
    """

    def rank(name: ImageName) -> tuple[bool, int, int, str, bool]:
        run = name.entities.get("run", "0")
        return (
            name.enhanced,
            len(name.entities),
            int(run) if run.isascii() and run.isdigit() else 0,
            name.path.name.removesuffix(name.extension),
            name.extension.lower() == ".nii",
        )

    return sorted((name for name in names if name.entities.get("part", "mag") == "mag"), key=rank)


def has_agent(sidecar: Path) -> bool:
    """Whether an image's JSON file says that a contrast agent was given."""
    agent = read_mapping(sidecar).get("ContrastBolusAgent")
    return str(agent or "").strip().lower() not in _NO_AGENT
