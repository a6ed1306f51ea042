"""One patient's rows, put together: visits in their order, each with what is known at it.

The rules are those of `records`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from msfl_client.clinical.faults import ALIKE, Notes
from msfl_client.clinical.tables import (
    CellError,
    Reading,
    Row,
    parse_time,
    parse_value,
    time_column,
)
from msfl_client.data.bids_tables import DAYS_PER_YEAR, alike, with_prefix

_GROWS = ("age", "disease_duration")
_RELAPSES = "relapses_prior_year"
_RELAPSE_DAYS = 365.0
_NUMBERED = re.compile(r"ses-\d+")


@dataclass(frozen=True)
class Visit:
    """A patient at one time.

    Attributes:
        visit_id: "ses-01"; None for a visit without images, or in a folder without ses- levels.
        days: since day 0; None where no table says when.
        values: what is known of the columns that were asked for.
        label: the label column's text in sessions.tsv, or None.
        imaged: whether it has images that can be used.
    """

    visit_id: str | None
    days: float | None
    values: Mapping[str, float] = field(hash=False)
    label: str | None = None
    imaged: bool = False


@dataclass(frozen=True)
class Patient:
    """A patient's visits, in their order.

    Attributes:
        key: unique within the site: sub-001; after the first folder, sub-001_data-1.
        visits: at least one.
        label: the label column's text in participants.tsv, or None.
        relapses: days since day 0 of each; None where no table of relapses is read.
    """

    key: str
    visits: tuple[Visit, ...]
    label: str | None = None
    relapses: tuple[float, ...] | None = None

    @property
    def baseline(self) -> int:
        """Number of the visit that participants.tsv describes: of day 0, else the first."""
        return baseline_of(self.visits)


@dataclass(frozen=True)
class PatientRows:
    """What the tables of a folder hold of one patient.

    Attributes:
        participants: of participants.tsv.
        sessions: of the patient's sessions.tsv.
        elsewhere: of phenotype/*.tsv.
        relapses: of phenotype/relapses.tsv; None where it is not read.
        folders: the visits that have a folder.
        imaged: the visits that have images that can be used.
    """

    participants: Sequence[Row]
    sessions: Sequence[Row]
    elsewhere: Sequence[Row]
    relapses: Sequence[Row] | None
    folders: Sequence[str | None]
    imaged: Sequence[str | None]


@dataclass(frozen=True)
class _Seen:
    """A row, read: `time` in days, of the calendar or since baseline."""

    row: Row | None
    visit_id: str | None
    time: float | None
    values: Mapping[str, float]
    label: str | None = None

    @property
    def is_of_a_visit(self) -> bool:
        """Whether it says which visit it is of, be it in words that cannot be read."""
        return self.visit_id is not None or (self.row is not None and time_column(self.row) in self.row.cells)


def patient_of(
    key: str, rows: PatientRows, wanted: Sequence[str], label: str | None, reading: Reading, notes: Notes
) -> Patient:
    """Put a patient together; where `notes` has faults afterwards, the patient is not to be used."""
    kinds: set[str] = set()
    sessions = [_read(row, wanted, label, reading, kinds, notes) for row in rows.sessions]
    others = [_read(row, wanted, None, reading, kinds, notes) for row in rows.elsewhere]
    elsewhere = [seen for seen in others if seen.is_of_a_visit]
    once = [seen for seen in others if not seen.is_of_a_visit]
    once += [_read(row, wanted, label, reading, None, notes) for row in rows.participants]
    relapses = [_time(row, reading, kinds, notes) for row in rows.relapses or ()]
    if len(kinds) > 1:
        timed = [seen.row for seen in (*sessions, *elsewhere) if seen.row is not None and seen.time is not None]
        last = (*timed, *(rows.relapses or ()))[-1]
        notes.fault(last, time_column(last), "expected dates alone or numbers alone for a patient", "both")
    named = dict.fromkeys([*rows.folders, *rows.imaged])
    _check_names([*sessions, *elsewhere], [name for name in named if name], notes)
    _check_times([*sessions, *elsewhere], kinds, notes)
    _check_untimed(sessions, notes)
    on_disk = [_Seen(None, name, 0.0 if _at_baseline(rows, name, kinds) else None, {}) for name in named]
    dated = [[seen.time for seen in part if seen.time is not None] for part in (sessions, elsewhere)]
    day_0 = min(dated[0] or dated[1], default=0.0) if kinds == {"date"} else 0.0
    visits = _in_order(_together([*sessions, *on_disk, *elsewhere], day_0, rows.imaged, notes), key, notes)
    known = {name: value for seen in once for name, value in seen.values.items()}
    _check_rows_agree(once, notes)
    visits = _with_baseline(visits, known)
    relapse_days = tuple(time - day_0 for time in relapses if time is not None)
    if rows.relapses is not None and _RELAPSES in wanted:
        visits = _with_relapses(visits, relapse_days)
    label_of = next((seen.label for seen in once if seen.label), None)
    return Patient(key, tuple(visits), label_of, None if rows.relapses is None else relapse_days)


def baseline_of(visits: Sequence[Visit]) -> int:
    """Number of the visit of day 0, else of the first."""
    return next((number for number, visit in enumerate(visits) if visit.days == 0), 0)


def _read(
    row: Row, wanted: Sequence[str], label: str | None, reading: Reading, kinds: set[str] | None, notes: Notes
) -> _Seen:
    """The cells that are asked for; adds the kind of the row's time to `kinds`, and reads no time without it."""
    values = {}
    if row.num_cells != row.num_columns:
        notes.fault(row, "", f"expected {row.num_columns} cells as in the first line", str(row.num_cells))
    else:
        for column in wanted:
            if text := row.cells.get(column):
                try:
                    values[column] = parse_value(column, text, reading)
                except CellError as error:
                    notes.fault(row, column, error.expected, error.found, error.fix)
    if values.get("edss") == 0.5:
        notes.warnings.append(f"{row.place('edss')}: the scale has no 0.5; kept")
    visit_id = row.cells.get("session_id")
    if visit_id:
        visit_id = with_prefix("ses-", visit_id)
    time = None if kinds is None else _time(row, reading, kinds, notes)
    return _Seen(row, visit_id, time, values, row.cells.get(label) if label else None)


def _time(row: Row, reading: Reading, kinds: set[str], notes: Notes) -> float | None:
    try:
        found = parse_time(row, reading)
    except CellError as error:
        notes.fault(row, time_column(row), error.expected, error.found, error.fix)
        return None
    if found is None:
        return None
    kinds.add(found[0])
    return found[1]


def _check_names(seen: Sequence[_Seen], folders: Sequence[str], notes: Notes) -> None:
    """A visit is named in the tables as its folder is: 1 is not 01, and would be another visit."""
    twins = {alike(name): name for name in folders}
    for one in seen:
        if one.row is None or one.visit_id is None or one.visit_id in folders:
            continue
        if (folder := twins.get(alike(one.visit_id))) is not None:
            found = repr(one.row.cells["session_id"])
            notes.fault(one.row, "session_id", "expected visits named as their folders", f"{found} for {folder}", ALIKE)


def _check_times(seen: Sequence[_Seen], kinds: set[str], notes: Notes) -> None:
    """Within a file, a patient's visits have each their own time, none before baseline; their order is free."""
    timed = [(one.row, one.time) for one in seen if one.row is not None and one.time is not None]
    for row, time in timed:
        if kinds == {"number"} and time < 0:
            notes.fault(row, time_column(row), "a visit before baseline; expected 0 or more")
    for path in dict.fromkeys(row.path for row, _ in timed):
        of_file = [(row, time) for row, time in timed if row.path == path]
        first: dict[float, Row] = {}
        for row, time in of_file:
            if (earlier := first.setdefault(time, row)) is not row:
                notes.fault(row, time_column(row), f"the same visit as line {earlier.line}; remove one")
        times = [time for _, time in of_file]
        if sorted(times) not in (times, times[::-1]) and len(set(times)) == len(times):
            lines = ", ".join(str(row.line) for row, _ in of_file)
            text = "visits stand neither oldest nor newest first; they are taken in order of time: look at their times"
            notes.warnings.append(f"{path}: lines {lines}: {text}")
    numbered = [
        (one.time, one.visit_id) for one in seen if one.time is not None and _NUMBERED.fullmatch(one.visit_id or "")
    ]
    names = [name or "" for _, name in sorted(numbered, key=lambda pair: pair[0])]
    for before, after in pairwise(names):
        if _natural(after) < _natural(before):
            notes.warnings.append(f"visit {after} is later than {before} by its time: look at both")


def _check_untimed(sessions: Sequence[_Seen], notes: Notes) -> None:
    """Visits without a time are taken in the order of their lines, which has to be that of their names."""
    named = [(one.row, one.visit_id) for one in sessions if one.row is not None and one.visit_id is not None]
    if not any(one.time is not None for one in sessions):
        for (_, before), (row, after) in pairwise(named):
            if _natural(after) < _natural(before):
                expected = "expected a time for each visit, or visits in the order of their names"
                notes.fault(
                    row, "session_id", expected, f"{after} after {before}", "add a column days, or sort the lines"
                )


def _natural(name: str) -> list[tuple[int, str]]:
    """What sorts ses-2 before ses-10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _together(seen: Sequence[_Seen], day_0: float, imaged: Sequence[str | None], notes: Notes) -> list[Visit]:
    """Rows of one visit in one: those that name its visit_id, or no visit_id and its day."""
    visits: list[Visit] = []
    sources: list[set[object]] = []
    for one in seen:
        days = None if one.time is None else one.time - day_0
        number = next((at for at, visit in enumerate(visits) if _same(one, days, visit)), None)
        if number is None:
            has_images = one.visit_id in imaged if one.visit_id else one.row is None
            visits.append(Visit(one.visit_id, days, one.values, one.label, has_images))
            sources.append({one.row.path} if one.row else set())
            continue
        visit = visits[number]
        if one.row is not None:
            if one.row.path in sources[number]:
                notes.fault(one.row, "session_id", "the visit is there twice; remove one")
            sources[number].add(one.row.path)
            for name in sorted({*one.values} & {*visit.values}):
                if one.values[name] != visit.values[name]:
                    expected = f"expected {visit.values[name]:g} as in another table"
                    notes.fault(one.row, name, expected, f"{one.values[name]:g}")
        when = days if visit.days is None else visit.days
        visits[number] = replace(visit, days=when, values={**one.values, **visit.values})
    return visits


def _same(one: _Seen, days: float | None, visit: Visit) -> bool:
    if one.visit_id is not None or (one.row is None):
        return visit.visit_id == one.visit_id
    return days is not None and visit.days == days


def _in_order(visits: list[Visit], key: str, notes: Notes) -> list[Visit]:
    """By time; where only some have one, the others are passed over. A patient without any has the baseline visit."""
    timed = sorted((visit for visit in visits if visit.days is not None), key=lambda visit: visit.days or 0.0)
    if not timed:
        return visits or [Visit(None, 0.0, {})]
    if len(timed) < len(visits):
        names = ", ".join(visit.visit_id or key for visit in visits if visit.days is None)
        notes.warnings.append(f"{key}: passed over, no date in sessions.tsv: {names}")
    return timed


def _at_baseline(rows: PatientRows, visit_id: str | None, kinds: set[str]) -> bool:
    """Images right under the subject, and tables that count from baseline."""
    return visit_id is None and not rows.sessions and kinds == {"number"}


def _check_rows_agree(once: Sequence[_Seen], notes: Notes) -> None:
    rows = [one.row for one in once if one.row is not None]
    for earlier, later in pairwise(rows):
        if earlier.path == later.path and earlier.cells != later.cells:
            text = f"listed on line {earlier.line} with other values; remove one"
            notes.fault(later, "participant_id", text)


def _with_baseline(visits: Sequence[Visit], known: Mapping[str, float]) -> list[Visit]:
    """Visits with what is known of the patient: all of it at baseline, and what can be told of the other visits."""
    baseline = baseline_of(visits)
    start = visits[baseline]
    first = {**known, **start.values}
    filled = []
    for number, visit in enumerate(visits):
        if number == baseline:
            filled.append(replace(start, values=first))
            continue
        derived = {"sex": first["sex"]} if "sex" in first else {}
        if visit.days is not None and start.days is not None:
            years = (visit.days - start.days) / DAYS_PER_YEAR
            derived |= {name: first[name] + years for name in _GROWS if name in first and first[name] + years >= 0}
        filled.append(replace(visit, values={**derived, **visit.values}))
    return filled


def _with_relapses(visits: Sequence[Visit], relapse_days: Sequence[float]) -> list[Visit]:
    def count(visit: Visit) -> dict[str, float]:
        if visit.days is None:
            return {}
        return {_RELAPSES: float(sum(visit.days - _RELAPSE_DAYS < day <= visit.days for day in relapse_days))}

    return [replace(visit, values={**count(visit), **visit.values}) for visit in visits]
