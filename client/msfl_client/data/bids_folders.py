"""The folders of a BIDS folder: which are subjects' and visits', and what is said of others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from msfl_client.data.bids_names import is_subject, is_visit_folder
from msfl_client.data.bids_near import images_in
from msfl_client.data.bids_tables import several
from msfl_client.data.findings import Finding
from msfl_common.errors import CohortError


def subject_folders(root: Path) -> tuple[list[Path], list[Finding]]:
    """The subjects' folders, and what is named nearly like one.

    Raises:
        CohortError: the folder cannot be opened, or holds no `sub-*` folder.
    """
    try:
        entries = [entry for entry in visible(root) if is_folder(entry)]
    except FileNotFoundError:
        raise CohortError(f"{root}: no such folder; correct `data:` in the site file") from None
    except NotADirectoryError:
        text = f"{root}: expected a BIDS folder, found a file; correct `data:` in the site file"
        raise CohortError(text) from None
    except OSError as error:
        raise CohortError(f"{root}: cannot be opened: {error.strerror}; grant read access") from None
    folders = [entry for entry in entries if is_subject(entry.name)]
    if not folders:
        here = images_in(root)
        raise CohortError(f"{root}: {_why_not_bids(entries)}" + (f"; here lies {here}" if here else ""))
    strange = [entry.name for entry in entries if entry.name.startswith("sub") and entry not in folders]
    text = f"{root}: passed over, not named like a subject: {several(strange)}"
    return folders, [Finding("warn", None, "name", text)] if strange else []


def _why_not_bids(entries: Sequence[Path]) -> str:
    for entry in entries:
        if any(is_subject(inner.name) for inner in visible_or_none(entry)):
            return f"no sub-* folder here, but in {entry.name}/; name that one"
    if any(entry.name.startswith("sub") for entry in entries):
        return "no subject: folders must be named sub-<label>, with letters and digits as the label"
    return "not a BIDS folder: expected sub-<label>/anat/sub-<label>_FLAIR.nii.gz; see bids.neuroimaging.io"


def no_masks(masks_root: Path) -> str:
    """What lies there in place of a folder of masks that is not there."""
    others = [entry.name for entry in visible_or_none(masks_root.parent) if is_folder(entry)]
    return f"{masks_root}: no such folder; derivatives/ holds {several(others) if others else 'no folder'}"


def visits_of(subject_folder: Path) -> list[str | None]:
    """The visit folders; None stands for images right under the subject."""
    entries = [entry.name for entry in visible_or_none(subject_folder) if is_folder(entry)]
    visits: list[str | None] = [name for name in entries if is_visit_folder(name)]
    return [None, *visits] if "anat" in entries or not visits else visits


def strange_visits(subject_folder: Path) -> list[Finding]:
    """Folders of a subject that are meant as visits, by name or by what they hold, and are none."""
    folders = [entry for entry in visible_or_none(subject_folder) if is_folder(entry) and entry.name != "anat"]
    visits = [entry.name for entry in folders if is_visit_folder(entry.name)]
    meant = [entry for entry in folders if entry.name.lower().startswith("ses") or is_folder(entry / "anat")]
    strange = [entry.name for entry in meant if entry.name not in visits]
    text = f"{subject_folder}: passed over, not named like a visit, ses-<label>: {several(strange)}"
    return [Finding("warn", None, "name", text)] if strange else []


def visible(folder: Path) -> list[Path]:
    """What a folder holds, in order, without hidden files."""
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))


def visible_or_none(folder: Path) -> Iterable[Path]:
    """What `visible` finds; nothing where the folder cannot be opened."""
    try:
        return visible(folder)
    except OSError:
        return []


def is_folder(path: Path) -> bool:
    """Whether it is a folder; one that may not be looked at counts, and is named when it is opened."""
    try:
        return path.is_dir()
    except OSError:
        return True
