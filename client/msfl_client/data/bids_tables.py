"""The tables and sidecars of a BIDS folder: which scanner made which images."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from types import MappingProxyType

from msfl_client.data.bids_names import sidecar_of
from msfl_client.data.findings import Finding
from msfl_common.config.contrasts import Contrast, facts_of
from msfl_common.errors import InputError
from msfl_common.system.reading import read_mapping
from msfl_common.system.tab_separated import TsvFile, number_of, read_tsv

_MISSING = {"", "n/a", "na", "nan", "none", "unknown"}
_NAMES_SHOWN = 5
DAYS_PER_YEAR = 365.25
DATE_COLUMNS = ("date", "acq_time")
NUMBER_COLUMNS: Mapping[str, float] = MappingProxyType(  # days of one unit
    {
        "days": 1.0,
        "days_from_baseline": 1.0,
        "years": DAYS_PER_YEAR,
        "years_from_baseline": DAYS_PER_YEAR,
    }
)
_FORMATS = (".csv", ".xlsx", ".xls", ".ods", ".txt", ".tsv")


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
        table = read_tsv(path, ["participant_id"])
    except FileNotFoundError:
        return Participants(findings=_other_formats(root))
    except InputError as error:
        return Participants(findings=[_warn(f"{error}; ignored")])
    listed: defaultdict[str, set[str | None]] = defaultdict(set)
    repeated = set()
    for _, row in table.whole_rows():
        if label := row["participant_id"]:
            subject = with_prefix("sub-", label)
            if subject in listed:
                repeated.add(subject)
            listed[subject].add(_known(row.get("scanner")))
    scanners = {subject: _only(values) for subject, values in listed.items()}
    findings = _shifted(table)
    for subject in sorted(repeated):
        differ = "" if len(listed[subject]) == 1 else "; its rows disagree on the scanner, which is left open"
        findings.append(_warn(f"{path}: {subject} is listed more than once{differ}"))
    return Participants(list(listed), {subject: name for subject, name in scanners.items() if name}, findings)


def read_rows(path: Path, prefix: str) -> dict[str, dict[str, str]]:
    """The rows of a participants.tsv or sessions.tsv by label, with its prefix; empty when it cannot be read.

    A label that is listed more than once with different rows is left out, and so is a line with cells too few or many.
    """
    column = {"sub-": "participant_id", "ses-": "session_id"}[prefix]
    try:
        table = read_tsv(path, [column])
    except (FileNotFoundError, InputError):
        return {}
    found: dict[str, dict[str, str]] = {}
    contradicted = set()
    for _, row in table.whole_rows():
        label = row[column]
        if label and found.setdefault(with_prefix(prefix, label), row) != row:
            contradicted.add(with_prefix(prefix, label))
    return {label: row for label, row in found.items() if label not in contradicted}


def compare_with_folders(root: Path, ids: Sequence[str], folders: Sequence[str]) -> list[Finding]:
    """Findings on rows without a `sub-*` folder and folders without a row."""
    findings = []
    twins = {alike(name): name for name in set(folders) - set(ids)}
    if other := {name: twins[alike(name)] for name in sorted(set(ids) - set(folders)) if alike(name) in twins}:
        found = several(f"{name} for {folder}" for name, folder in other.items())
        text = f"{root}: participants.tsv writes ids otherwise than the folders, so that they do not match: {found}"
        findings.append(Finding("warn", None, "ids", text))
    ids, folders = [name for name in ids if name not in other], [name for name in folders if name not in other.values()]
    if rows := sorted(set(ids) - set(folders)):
        findings.append(_warn(f"{root}: listed in participants.tsv, but without a folder: {several(rows)}"))
    if extra := sorted(set(folders) - set(ids)):
        findings.append(_warn(f"{root}: folder without a row in participants.tsv: {several(extra)}"))
    return findings


def visit_scanners(subject_folder: Path) -> dict[str, str]:
    """Visit ("ses-01") to scanner, from `sub-<label>_sessions.tsv`; empty when absent or unreadable."""
    rows = read_rows(subject_folder / f"{subject_folder.name}_sessions.tsv", "ses-")
    return {visit: scanner for visit, row in rows.items() if (scanner := _known(row.get("scanner")))}


def visit_times(subject_folder: Path) -> dict[str, float]:
    """Visit ("ses-01") to its time in `sub-<label>_sessions.tsv`, days on one axis; of the first column that has any.

    A visit whose time is missing, or cannot be read, is left out.
    """
    rows = read_rows(subject_folder / f"{subject_folder.name}_sessions.tsv", "ses-")
    for column in (*DATE_COLUMNS, *NUMBER_COLUMNS):
        texts = {visit: text for visit, row in rows.items() if (text := _known(row.get(column)))}
        times = {visit: time for visit, text in texts.items() if (time := _time(column, text)) is not None}
        if times:
            return times
    return {}


def day_of(text: str) -> int:
    """The number of the day of a date, or of a date and time, as ISO has it.

    Raises:
        ValueError: it is neither.
    """
    try:
        return date.fromisoformat(text).toordinal()
    except ValueError:
        return datetime.fromisoformat(text).date().toordinal()


def _time(column: str, text: str) -> float | None:
    try:
        time = float(day_of(text)) if column in DATE_COLUMNS else number_of(text)
    except ValueError:
        return None
    return None if math.isnan(time) else time


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


def with_prefix(prefix: str, label: str) -> str:
    """A label as BIDS has it: sub-001 of 001."""
    return label if label.startswith(prefix) else prefix + label


def alike(label: str) -> str:
    """What labels have in common that a spreadsheet or a person wrote in two ways: 001, 1, 1.0; P-7 and p007."""
    bare = re.sub(r"^(sub|ses)-", "", label.lower())
    bare = re.sub(r"[^a-z0-9]", "", bare.removesuffix(".0"))
    return re.sub(r"(?<!\d)0+(?=\d)", "", bare)


def not_tsv(folder: Path, name: str) -> list[Path]:
    """Files that may be meant for the table `name`, but are of another format."""
    try:
        entries = sorted(entry for entry in folder.iterdir() if entry.is_file())
    except OSError:
        return []
    stem = name.removesuffix(".tsv").lower()
    return [one for one in entries if one.name.lower().split(".")[0] == stem and is_other_format(one.name)]


def is_other_format(name: str) -> bool:
    """Whether a file is named like a table that is no tab-separated one, such as a spreadsheet's."""
    return name.lower().endswith(_FORMATS) and not name.endswith(".tsv")


def _other_formats(root: Path) -> list[Finding]:
    text = "{}: is not read; save it as tab-separated text, participants.tsv"
    return [_warn(text.format(path)) for path in not_tsv(root, "participants.tsv")]


def _shifted(table: TsvFile) -> list[Finding]:
    """Lines that say nothing with certainty."""
    lines = [line for line in table.lines if len(line.cells) != len(table.columns)]
    if not lines:
        return []
    numbers = several(str(line.number) for line in lines)
    return [_warn(f"{table.path}: line {numbers}: {table.length_fault(lines[0])}; passed over")]


def _known(value: str | None) -> str | None:
    text = " ".join((value or "").split())
    return None if text.lower() in _MISSING else text


def _only(values: set[str | None]) -> str | None:
    return next(iter(values)) if len(values) == 1 else None


def _warn(text: str) -> Finding:
    return Finding("warn", None, "participants", text)
