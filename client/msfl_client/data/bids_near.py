"""What lies in a case's folders under names that are not looked for, so that nothing is missing without a word."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from msfl_client.data.bids_ignore import Ignored, read_ignored
from msfl_client.data.bids_names import is_nifti
from msfl_client.data.bids_tables import several
from msfl_client.data.findings import Finding

# Formats that are not read, and how they become NIfTI.
_OTHERS = {
    ".mgz": "FreeSurfer's: mri_convert makes .nii.gz of it",
    ".mgh": "FreeSurfer's: mri_convert makes .nii.gz of it",
    ".hdr": "a pair of .hdr and .img, which may not say left from right: convert it anew from DICOM",
    ".img": "",  # its .hdr is named
    ".nrrd": "not NIfTI: convert it",
    ".mha": "not NIfTI: convert it",
    ".mnc": "not NIfTI: convert it",
    ".dcm": "DICOM: `msfl-client import-dicom`",
}
_MASK_WORDS = {"mask", "roi", "dseg", "seg", "lesion", "lesions", "label", "labels", "wmh"}
_DEEPEST = 3  # folders below the subject's, or the masks', that are looked through


def image_elsewhere(
    subject: str, visit: str | None, suffix: str, root: Path, ignored: Ignored, taken: Iterable[Path]
) -> str:
    """What could be a missing image; empty where nothing could.

    Args:
        subject: "sub-01".
        visit: "ses-01", or None.
        suffix: what a name of the contrast ends with: "FLAIR".
        root: the BIDS folder.
        ignored: what is no part of it.
        taken: files that are used already, or spoken of.
    """
    words = {suffix.lower(), suffix.lower().removesuffix("w")}
    found = [path for path in _files(root / subject, ignored) if words & _words(path)]
    return _line(subject, visit, f"{suffix}.nii.gz", root, found, taken)


def mask_elsewhere(subject: str, visit: str | None, label: str, ignored: Ignored, taken: Iterable[Path]) -> str:
    """What could be a missing mask of this label, in the folder of masks; empty where nothing could."""
    root = ignored.root
    flat = [path for path in _files(root, ignored, deepest=0) if path.name.startswith(f"{subject}_")]
    found = [path for path in [*flat, *_files(root / subject, ignored)] if _MASK_WORDS & _words(path)]
    return _line(subject, visit, f"label-{label}_mask.nii.gz", root, found, taken)


def images_in(folder: Path) -> str:
    """The images that lie right in a folder; empty where none does."""
    return several(path.name for path in _files(folder, read_ignored(folder), deepest=0))


def ignored_note(*ignored: Ignored) -> Iterator[Finding]:
    """What the files say, and what they leave out."""
    for one in ignored:
        yield from one.findings
        if one.passed_over:
            text = f"{one.root}: left out by .bidsignore: {several(sorted(one.passed_over))}"
            yield Finding("pass", None, "bidsignore", text)


def _line(
    subject: str, visit: str | None, ending: str, root: Path, found: Sequence[Path], taken: Iterable[Path]
) -> str:
    place = Path(subject, visit or "", "anat")
    left = [path for path in found if path not in set(taken) and _may_be_of(path.relative_to(root), visit)]
    if not left:
        return ""
    wanted = place / "_".join(part for part in (subject, visit, ending) if part)
    advice = dict.fromkeys(text for path in left if (text := _OTHERS.get(_format(path))))
    if any(_format(path) == ".nii" and path.parent != root / place for path in left):
        advice["move it there"] = None
    names = several(path.relative_to(root).as_posix() for path in left)
    return f"looked for {wanted.as_posix()}; there lies {names}" + "".join(f" ({text})" for text in advice)


def _files(folder: Path, ignored: Ignored, deepest: int = _DEEPEST) -> list[Path]:
    """Images of any format in a folder and those below, without the second file of a pair."""
    found = []
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError:
        return []
    for entry in entries:
        if _format(entry) and _OTHERS.get(_format(entry)) != "" and entry not in ignored:
            found.append(entry)
        elif deepest and entry.is_dir() and not entry.is_symlink():
            found += _files(entry, ignored, deepest - 1)
    return found


def how_to_convert(path: Path) -> str:
    """How an image of another format becomes NIfTI; empty for NIfTI, and for what is no image by its name."""
    return _OTHERS.get(_format(path), "") or _OTHERS[".hdr"] * (_format(path) == ".img")


def _format(path: Path) -> str:
    """`.nii` for NIfTI, the ending of another image; empty for anything else."""
    if is_nifti(path.name):
        return ".nii"
    ending = path.name.lower().removesuffix(".gz")
    return next((known for known in _OTHERS if ending.endswith(known)), "")


def _words(path: Path) -> set[str]:
    return set(re.split(r"[^a-z0-9]+", path.name.lower()))


def _may_be_of(path: Path, visit: str | None) -> bool:
    """Whether a file may be of a visit: no other is in its path."""
    named = set(re.findall(r"ses-[A-Za-z0-9+]+", path.as_posix()))
    return not named or visit in named
