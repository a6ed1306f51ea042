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

Visits with a time may stand in any order; those of a sessions.tsv without one are taken in the order of their lines.

A patient with a fault in what the study reads is left out, with file, line, column and rule: a value that cannot be,
a row with too few or too many cells, a number before baseline, the same visit twice, visits without a time that stand
in another order than their names, dates mixed with numbers, two tables that contradict each other, an id that one
table writes otherwise than another (1 for 001). What many patients have is told once. EDSS 0.5, which the scale does
not have, is kept with a warning.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from msfl_client.clinical.faults import Notes, findings_of
from msfl_client.clinical.folder_tables import Folder
from msfl_client.clinical.tables import READ, Reading, doubtful_columns, words_of
from msfl_client.clinical.visits import Patient, Visit, patient_of
from msfl_client.data.bids import case_key
from msfl_client.data.bids_tables import several
from msfl_client.data.findings import Finding
from msfl_common.config.clinical_values import ClinicalValue, described
from msfl_common.config.site import SiteConfig
from msfl_common.errors import InputError

__all__ = ["ClinicalRecords", "Patient", "Visit", "read_clinical"]

Imaged = Mapping[tuple[int, str], Sequence[str | None]]


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
    site: SiteConfig,
    columns: Collection[str],
    label: str | None = None,
    imaged: Imaged = MappingProxyType({}),
    with_relapses: bool = False,
    declared: Sequence[ClinicalValue] = (),
) -> ClinicalRecords:
    """Read the tables of a site's BIDS folders.

    Args:
        site: `data` and `words` are used.
        columns: the quantities to read, of `tables.READ` and those declared; others may hold anything.
        label: the column of text that holds the label, if any.
        imaged: the visits of each (folder, subject) that have images; one that no table names has no time.
        with_relapses: whether the relapses of each patient are needed.
        declared: the study's own values.

    Returns:
        Every patient of the tables and images; a fault costs its patient, never the site.

    Raises:
        InputError: a table of many patients cannot be read at all; the label is in no table, or in both kinds.
    """
    label = label.lower() if label else None
    known = {**READ, **{one.name: one for one in declared}}
    values = {name: known[name] for name in columns if name in known}
    wanted, words = [*values], words_of(values, site.words.of_columns)
    patients: dict[tuple[int, str], Patient] = {}
    notes: dict[str, Notes] = {}
    findings: list[Finding] = []
    label_tables: set[str] = set()
    for dataset, root in enumerate(site.data):
        with_images = {subject for number, subject in imaged if number == dataset}
        folder = Folder.read(root, wanted, with_relapses or "relapses_prior_year" in wanted, with_images)
        reading = Reading(values, words, doubtful_columns(folder.tables, words))
        label_tables |= folder.tables_with(label or "")
        findings += [*folder.findings(), *_lacking(folder, declared)]
        for subject in sorted(folder.subjects):
            key = case_key(subject, None, dataset)
            notes[key] = Notes(folder.faults.get(subject, []))
            rows = folder.rows_of(subject, imaged.get((dataset, subject), ()))
            patient = patient_of(key, rows, wanted, label, reading, notes[key])
            if not notes[key].faults:
                patients[dataset, subject] = patient
    left_out = {key: "; ".join(map(str, one.faults)) for key, one in notes.items() if one.faults}
    if label and len(label_tables) != 1:
        there = "found in both" if label_tables else "found in neither"
        raise InputError(
            f"outcome.column {label}: expected in participants.tsv or in sessions.tsv of "
            f"{several(map(str, site.data))}, {there}; name the column of the label, and have it in one of them"
        )
    findings += findings_of(notes)
    return ClinicalRecords(patients, left_out, tuple(findings), "sessions.tsv" in label_tables)


def lacking_columns(site: SiteConfig, declared: Sequence[ClinicalValue]) -> tuple[str, ...]:
    """Values that a study declares, and no table of any folder of a site has a column for.

    Raises:
        InputError: a table of many patients cannot be read.
    """
    names = [one.name for one in declared]
    folders = [Folder.read(root, names, False, ()) for root in site.data] if names else []
    there = {column for folder in folders for table in folder.tables for column in table.columns}
    return tuple(name for name in names if name not in there)


def _lacking(folder: Folder, declared: Sequence[ClinicalValue]) -> Iterator[Finding]:
    """Values that a study declares, and no table of a folder has a column for."""
    for one in declared:
        if not any(one.name in table.columns for table in folder.tables):
            text = f"{folder.root}: the study declares {described(one)}, and no table has a column {one.name}"
            yield Finding(
                "fail", None, "tables", f"{text}; add it to participants.tsv, sessions.tsv or phenotype/*.tsv"
            )
