"""The tables and sidecars of a BIDS folder: which scanner made which images."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from msfl_client.data.bids_names import sidecar_of
from msfl_client.data.findings import Finding
from msfl_common.config.contrasts import Contrast, facts_of
from msfl_common.errors import reason
from msfl_common.system.reading import read_mapping

_MISSING = {"", "n/a", "na", "nan", "none", "unknown"}
_NAMES_SHOWN = 5


@dataclass(frozen=True)
class Participants:
    """`participants.tsv`: the ids it lists and the scanner of each, where it says so.

    Attributes:
        ids: every listed subject ("sub-001"), in the file's order; None when there is no such file.
        scanners: subject to scanner.
        findings: what is wrong with the file.
    """

    ids: Sequence[str] | None = None
    scanners: Mapping[str, str] = field(default_factory=dict, hash=False)
    findings: Sequence[Finding] = ()


def read_participants(root: Path) -> Participants:
    """Read `participants.tsv` of a BIDS folder; a broken file becomes a finding, never an error.

    A subject listed more than once counts once; its scanner is used only when its rows agree on it.
    """
    path = root / "participants.tsv"
    try:
        rows = _read_tsv(path)
    except FileNotFoundError:
        return Participants()
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        return Participants(findings=[_warn(f"{path}: cannot be read ({reason(error)}); ignored")])
    if rows and "participant_id" not in rows[0]:
        return Participants(findings=[_warn(f"{path}: no tab-separated column participant_id; ignored")])
    listed: defaultdict[str, set[str | None]] = defaultdict(set)
    repeated = set()
    for row in rows:
        label = (row.get("participant_id") or "").strip()
        if label:
            subject = _with_prefix("sub-", label)
            if subject in listed:
                repeated.add(subject)
            listed[subject].add(_known(row.get("scanner")))
    scanners = {subject: _only(values) for subject, values in listed.items()}
    findings = []
    for subject in sorted(repeated):
        differ = "" if len(listed[subject]) == 1 else "; its rows disagree on the scanner, which is left open"
        findings.append(_warn(f"{path}: {subject} is listed more than once{differ}"))
    return Participants(list(listed), {subject: name for subject, name in scanners.items() if name}, findings)


def read_rows(path: Path, prefix: str) -> dict[str, dict[str, str]]:
    """The rows of a participants.tsv or sessions.tsv by label, with its prefix; empty when it cannot be read.

    A label that is listed more than once with different rows is left out.
    """
    try:
        rows = _read_tsv(path)
    except (OSError, UnicodeDecodeError, csv.Error):
        return {}
    found: dict[str, dict[str, str]] = {}
    contradicted = set()
    for row in rows:
        label = (row.get({"sub-": "participant_id", "ses-": "session_id"}[prefix]) or "").strip()
        if label and found.setdefault(_with_prefix(prefix, label), row) != row:
            contradicted.add(_with_prefix(prefix, label))
    return {label: row for label, row in found.items() if label not in contradicted}


def compare_with_folders(root: Path, ids: Sequence[str], folders: Sequence[str]) -> list[Finding]:
    """Findings on rows without a `sub-*` folder and folders without a row."""
    findings = []
    if rows := sorted(set(ids) - set(folders)):
        findings.append(_warn(f"{root}: listed in participants.tsv, but without a folder: {several(rows)}"))
    if extra := sorted(set(folders) - set(ids)):
        findings.append(_warn(f"{root}: folder without a row in participants.tsv: {several(extra)}"))
    return findings


def visit_scanners(subject_folder: Path) -> dict[str, str]:
    """Visit ("ses-01") to scanner, from `sub-<label>_sessions.tsv`; empty when absent or unreadable."""
    rows = read_rows(subject_folder / f"{subject_folder.name}_sessions.tsv", "ses-")
    return {visit: scanner for visit, row in rows.items() if (scanner := _known(row.get("scanner")))}


def sidecar_scanner(root: Path, images: Mapping[Contrast, Path]) -> str | None:
    """Manufacturer and model from the first JSON sidecar that names them.

    Beside each image, then `<contrast>.json` at the root, which by BIDS applies to every such image.
    """
    beside = [sidecar_of(path) for path in images.values()]
    for path in [*beside, *(root / f"{facts_of(contrast).suffix}.json" for contrast in images)]:
        content = read_mapping(path)
        parts = [_known(str(content.get(key, ""))) for key in ("Manufacturer", "ManufacturersModelName")]
        if any(parts):
            return " ".join(part for part in parts if part)
    return None


def several(names: Iterable[str]) -> str:
    """Names for a line of text; of many, the first few and a count."""
    names = list(names)
    rest = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _read_tsv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def _with_prefix(prefix: str, label: str) -> str:
    return label if label.startswith(prefix) else prefix + label


def _known(value: str | None) -> str | None:
    text = " ".join((value or "").split())
    return None if text.lower() in _MISSING else text


def _only(values: set[str | None]) -> str | None:
    return next(iter(values)) if len(values) == 1 else None


def _warn(text: str) -> Finding:
    return Finding("warn", None, "participants", text)
