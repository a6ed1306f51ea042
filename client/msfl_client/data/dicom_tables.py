"""What an import adds to a BIDS folder's tables: sex of a patient, age and day of a visit; what is there stays.

Days are counted from the patient's first visit, so that endpoints have their intervals and nobody has a date.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from msfl_common.errors import InputError
from msfl_common.system.files import write_json, write_text

UNKNOWN = "n/a"
_TIMES = ("date", "acq_time", "days_from_baseline", "years", "years_from_baseline")  # a site's own way


@dataclass(frozen=True)
class VisitFacts:
    """What is known of a visit: the patient's sex, F or M, and age in whole years; each may be n/a."""

    sex: str
    age: str


def describe_visits(
    bids: Path, visits: Mapping[tuple[str, str], VisitFacts], dates: Mapping[tuple[str, str], datetime.date]
) -> list[str]:
    """Add visits to participants.tsv and sessions.tsv; what could not be added, in words.

    Args:
        bids: the folder.
        visits: (subject, visit) to what is known.
        dates: the day of each visit that has one, those of earlier imports among them.

    Raises:
        InputError: a table has no column for its labels.
    """
    if not (bids / "dataset_description.json").exists():
        description = {"Name": "Imported from DICOM", "BIDSVersion": "1.10.0", "DatasetType": "raw"}
        write_json(bids / "dataset_description.json", description)
    notes = []
    participants = _Table.read(bids / "participants.tsv", "participant_id", ["sex"])
    for subject in sorted({subject for subject, _ in visits}):
        sex = next((facts.sex for (whose, _), facts in sorted(visits.items()) if whose == subject), UNKNOWN)
        participants.add(subject, {"sex": sex})
        path = bids / subject / f"{subject}_sessions.tsv"
        sessions = _Table.read(path, "session_id", ["age", "days"])
        of_subject = {visit: facts for (whose, visit), facts in visits.items() if whose == subject}
        for visit, facts in sorted(of_subject.items()):
            sessions.add(visit, {"age": facts.age})
        if own := [name for name in _TIMES if name in sessions.columns]:
            lacking = [row[sessions.label] for row in sessions.rows if row.get(own[0], UNKNOWN) == UNKNOWN]
            if lacking:
                notes.append(f"{path}: add {own[0]} of {', '.join(lacking)}; the table has days in its own way")
        else:
            _count_days(sessions, {visit: day for (whose, visit), day in dates.items() if whose == subject})
        sessions.write()
    participants.write()
    return notes


def _count_days(sessions: _Table, dates: Mapping[str, datetime.date]) -> None:
    """Fill the column `days`, from the table's own day 0 where it has one; day 0 moves back for an earlier visit."""
    if "days" not in sessions.columns:
        sessions.columns.append("days")
    own = [(row, dates.get(row[sessions.label])) for row in sessions.rows]
    known = [(row, day) for row, day in own if day is not None]
    if not known:
        return
    counted = ((day, _whole(row.get("days"))) for row, day in known)
    day_0 = next((day - datetime.timedelta(days) for day, days in counted if days is not None), min(dates.values()))
    for row, day in known:
        if _whole(row.get("days")) is None:
            row["days"] = str((day - day_0).days)
    before = min((days for row in sessions.rows if (days := _whole(row.get("days"))) is not None), default=0)
    for row in sessions.rows:
        if before < 0 and (days := _whole(row.get("days"))) is not None:
            row["days"] = str(days - before)
    if all(_whole(row.get("days")) is not None for row in sessions.rows):
        sessions.rows.sort(key=lambda row: int(row["days"]))


def _whole(text: str | None) -> int | None:
    try:
        return int(text or "")
    except ValueError:
        return None


@dataclass
class _Table:
    """A tab-separated table whose first values of a row are its label; only changed cells are written anew."""

    path: Path
    label: str
    columns: list[str]
    rows: list[dict[str, str]]
    before: str

    @classmethod
    def read(cls, path: Path, label: str, columns: Sequence[str]) -> _Table:
        text = path.read_text(encoding="utf-8-sig") if path.exists() else ""
        lines = [line for line in text.splitlines() if line.strip()]
        found = lines[0].split("\t") if lines else [label, *columns]
        if label not in found:
            raise InputError(f"{path}: expected a tab-separated column {label}; mend the file or move it away")
        return cls(path, label, found, [dict(zip(found, line.split("\t"), strict=False)) for line in lines[1:]], text)

    def add(self, label: str, values: Mapping[str, str]) -> None:
        """Add a row unless its label is listed; values of columns that the table has not are left out of it."""
        if label not in {row.get(self.label) for row in self.rows}:
            self.rows.append({self.label: label, **values})

    def write(self) -> None:
        rows = ("\t".join(row.get(column, UNKNOWN) for column in self.columns) for row in self.rows)
        text = "\n".join(["\t".join(self.columns), *rows]) + "\n"
        if text != self.before:
            write_text(self.path, text)
