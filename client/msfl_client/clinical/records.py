"""The patients of a site as its tables have them: visits in their order, clinical values, labels.

Three places are read in each BIDS folder:

- participants.tsv: one row a patient. `sex` holds for every visit. `age` and `disease_duration` are those at baseline
  and grow with the time since; `edss`, subscores, `treated` and `relapses_prior_year` are those of the baseline visit.
- sub-*/sub-*_sessions.tsv: one row a visit with `session_id`, and its time. What it says goes before participants.tsv.
- phenotype/*.tsv with `participant_id`: one row a visit, which names its `session_id`, its time or both; a row
  without visit_id that is of the day of one belongs to it, any other is a visit without images. A row with neither
  counts like one of participants.tsv. Of phenotype/relapses.tsv the times are read, one relapse a row.

A time is a date (`date` or `acq_time`), or a number since baseline (`days`, `days_from_baseline`, `years` or
`years_from_baseline`). Day 0 of dates is the patient's first in sessions.tsv, else the first there is. Where nothing
gives `relapses_prior_year`, the relapses of the 365 days up to the visit are counted, if the folder has a
relapses.tsv, which then lists all.

A patient with a fault in what the study reads is left out, with file, line, column and rule: a value that cannot be,
a row with too few or too many cells, dates in the wrong order, a number before baseline, the same visit twice, dates
mixed with numbers, two tables that contradict each other. EDSS 0.5, which the scale does not have, is kept with a
warning.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from msfl_client.clinical.tables import SCALES, WORDS, Row, Table, read_table
from msfl_client.clinical.visits import Notes, Patient, PatientRows, Visit, patient_of
from msfl_client.data.bids import case_key
from msfl_client.data.bids_tables import several
from msfl_client.data.findings import Finding
from msfl_common.errors import InputError

__all__ = ["ClinicalRecords", "Patient", "Visit", "read_clinical"]

Imaged = Mapping[tuple[int, str], Sequence[str | None]]
_RELAPSES = "relapses_prior_year"


@dataclass(frozen=True)
class ClinicalRecords:
    """What the tables of a site say.

    Attributes:
        patients: (folder, subject) to patient; those with a fault are not among them.
        left_out: key of each patient with a fault, to all of its faults in a line.
        findings: faults and warnings, for the site's eyes.
        label_in_sessions: whether sessions.tsv, not participants.tsv, holds the label.
    """

    patients: Mapping[tuple[int, str], Patient]
    left_out: Mapping[str, str]
    findings: tuple[Finding, ...]
    label_in_sessions: bool = False


def read_clinical(
    roots: Sequence[Path], columns: Collection[str], label: str | None = None, imaged: Imaged = MappingProxyType({})
) -> ClinicalRecords:
    """Read the tables of a site's BIDS folders.

    Args:
        roots: the BIDS folders.
        columns: the quantities to read, of `tables.SCALES` and `WORDS`; others may hold anything.
        label: the column of text that holds the label, if any.
        imaged: the visits of each (folder, subject) that have images; one that no table names has no time.

    Returns:
        Every patient of the tables and images; a fault costs its patient, never the site.

    Raises:
        InputError: a table cannot be read at all; the label is in no table, or in both kinds.
    """
    label = label.lower() if label else None
    wanted = [name for name in columns if name in SCALES or name in WORDS]
    patients: dict[tuple[int, str], Patient] = {}
    left_out: dict[str, str] = {}
    findings: list[Finding] = []
    label_tables: set[str] = set()
    for dataset, root in enumerate(roots):
        folder = _Folder.read(root, wanted)
        with_images = {subject for number, subject in imaged if number == dataset}
        label_tables |= folder.tables_with(label or "")
        for subject in sorted({*folder.subjects, *with_images}):
            key = case_key(subject, None, dataset)
            notes = Notes()
            rows = folder.rows_of(root, subject, imaged.get((dataset, subject), ()))
            patient = patient_of(key, rows, wanted, label, notes)
            findings += [Finding("fail", key, "clinical", text) for text in notes.faults]
            findings += [Finding("warn", key, "clinical", text) for text in notes.warnings]
            if notes.faults:
                left_out[key] = "; ".join(notes.faults)
            else:
                patients[dataset, subject] = patient
    if label and len(label_tables) != 1:
        there = "found in both" if label_tables else "found in neither"
        raise InputError(
            f"outcome.column {label}: expected in participants.tsv or in sessions.tsv of "
            f"{several(map(str, roots))}, {there}; name the column of the label, and have it in one of them"
        )
    return ClinicalRecords(patients, left_out, tuple(findings), "sessions.tsv" in label_tables)


@dataclass(frozen=True)
class _Folder:
    """The rows of a BIDS folder by subject: of the patient, of sessions.tsv, of visits elsewhere, of relapses."""

    participants: Table | None
    of_patient: Mapping[str, list[Row]]
    sessions: Mapping[str, Table]
    elsewhere: Mapping[str, list[Row]]
    relapses: Mapping[str, list[Row]] | None

    @classmethod
    def read(cls, root: Path, wanted: Sequence[str]) -> _Folder:
        participants = read_table(root / "participants.tsv", ["participant_id"])
        of_patient = _by_subject([participants] if participants else [])
        sessions = {}
        for path in sorted(root.glob("sub-*/sub-*_sessions.tsv")):
            table = read_table(path, ["session_id"])
            if table is not None and path.name == f"{path.parent.name}_sessions.tsv":
                sessions[path.parent.name] = table
        relapses = read_table(root / "phenotype" / "relapses.tsv", ["participant_id"]) if _RELAPSES in wanted else None
        others = [path for path in sorted(root.glob("phenotype/*.tsv")) if path.name != "relapses.tsv"]
        elsewhere: defaultdict[str, list[Row]] = defaultdict(list)
        for path in others:
            table = read_table(path, [])
            if table is None or not set(table.columns) & set(wanted):
                continue  # of another matter
            if "participant_id" not in table.columns:
                raise InputError(f"{path}: no tab-separated column participant_id; add it to the first line")
            for subject, rows in _by_subject([table]).items():
                elsewhere[subject] += rows
        return cls(participants, of_patient, sessions, elsewhere, _by_subject([relapses]) if relapses else None)

    @property
    def subjects(self) -> set[str]:
        return {*self.of_patient, *self.sessions, *self.elsewhere}

    def rows_of(self, root: Path, subject: str, imaged: Sequence[str | None]) -> PatientRows:
        """The rows of one patient, with the visits that have a folder or images."""
        folders = [path.name for path in sorted((root / subject).glob("ses-*")) if path.is_dir()]
        sessions = self.sessions[subject].rows if subject in self.sessions else ()
        relapses = None if self.relapses is None else self.relapses.get(subject, [])
        elsewhere = self.elsewhere.get(subject, [])
        return PatientRows(self.of_patient.get(subject, []), sessions, elsewhere, relapses, folders, imaged)

    def tables_with(self, column: str) -> set[str]:
        """The kinds of table that have a column."""
        of_patient = self.participants is not None and column in self.participants.columns
        of_visit = any(column in table.columns for table in self.sessions.values())
        return {name for name, there in (("participants.tsv", of_patient), ("sessions.tsv", of_visit)) if there}


def _by_subject(tables: Iterable[Table]) -> dict[str, list[Row]]:
    found: defaultdict[str, list[Row]] = defaultdict(list)
    for table in tables:
        for row in table.rows:
            if label := row.cells.get("participant_id"):
                found[label if label.startswith("sub-") else f"sub-{label}"].append(row)
    return dict(found)
