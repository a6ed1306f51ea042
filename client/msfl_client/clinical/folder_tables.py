"""The tables of one BIDS folder: whose each row is, and what they say of a patient, rows and ids held side by side."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from msfl_client.clinical.faults import ALIKE, Fault
from msfl_client.clinical.tables import Row, Table, read_table
from msfl_client.clinical.visits import PatientRows
from msfl_client.data.bids_names import is_subject
from msfl_client.data.bids_tables import alike, is_other_format, not_tsv, several
from msfl_client.data.findings import Finding
from msfl_common.errors import InputError

_SESSIONS, _RELAPSES, _PHENOTYPE = "sub-*/sub-*_sessions.tsv", "relapses.tsv", "phenotype"
_LINE = re.compile(r"line (\d+): ")


@dataclass(frozen=True)
class Folder:
    """The tables of a BIDS folder.

    Attributes:
        root: the folder.
        participants: participants.tsv, or None.
        sessions: subject to its sessions.tsv.
        phenotype: the tables of phenotype/ that hold what is asked for.
        relapses: phenotype/relapses.tsv; None where there is none, or it is not asked for.
        broken: subject to what is wrong with its sessions.tsv.
        empty: tables of visits without a line.
        with_images: subjects with images or features.
    """

    root: Path
    participants: Table | None
    sessions: Mapping[str, Table]
    phenotype: Sequence[Table]
    relapses: Table | None
    broken: Mapping[str, Fault]
    empty: Sequence[Path]
    with_images: Collection[str]

    @classmethod
    def read(cls, root: Path, wanted: Collection[str], with_relapses: bool, with_images: Collection[str]) -> Folder:
        """Read them.

        Raises:
            InputError: a table of many patients cannot be read.
        """
        participants = read_table(root / "participants.tsv", ["participant_id"])
        sessions: dict[str, Table] = {}
        broken: dict[str, Fault] = {}
        empty: list[Path] = []
        for path in sorted(root.glob(_SESSIONS)):
            subject = path.parent.name
            if path.name != f"{subject}_sessions.tsv":
                continue
            try:
                if not path.read_bytes().strip():
                    empty.append(path)
                elif (table := read_table(path, ["session_id"])) is not None:
                    sessions[subject] = table
            except (InputError, OSError) as error:
                broken[subject] = _broken(path, str(error))
        names = [path for path in sorted(root.glob(f"{_PHENOTYPE}/*.tsv")) if path.name != _RELAPSES]
        empty += [path for path in names if not path.stat().st_size]
        phenotype = [table for path in names if (table := _asked_for(path, wanted)) is not None]
        relapses = read_table(root / _PHENOTYPE / _RELAPSES, ["participant_id"]) if with_relapses else None
        return cls(root, participants, sessions, phenotype, relapses, broken, empty, with_images)

    @property
    def tables(self) -> list[Table]:
        """All of them."""
        return [*self._with_ids, *self.sessions.values()]

    @property
    def subjects(self) -> set[str]:
        """Everybody whom a table names, other than with a relapse alone."""
        tables = [*([self.participants] if self.participants else []), *self.phenotype]
        found = {*self._of_visits, *self.with_images, *(subject for table in tables for subject in table.of_subjects)}
        return (found | {*self.faults}) - {*self._other_spellings}

    def rows_of(self, subject: str, imaged: Sequence[str | None]) -> PatientRows:
        """The rows of one patient, with the visits that have a folder or images."""
        return PatientRows(
            participants=self.participants.of_subjects.get(subject, ()) if self.participants else (),
            sessions=self.sessions[subject].rows if subject in self.sessions else (),
            elsewhere=[row for table in self.phenotype for row in table.of_subjects.get(subject, ())],
            relapses=self.relapses.of_subjects.get(subject, ()) if self.relapses else None,
            folders=[path.name for path in sorted((self.root / subject).glob("ses-*")) if path.is_dir()],
            imaged=imaged,
        )

    def tables_with(self, column: str) -> set[str]:
        """The kinds of table that have a column."""
        of_patient = self.participants is not None and column in self.participants.columns
        of_visit = any(column in table.columns for table in self.sessions.values())
        return {name for name, there in (("participants.tsv", of_patient), ("sessions.tsv", of_visit)) if there}

    @cached_property
    def faults(self) -> Mapping[str, Sequence[Fault]]:
        """Subject to what is wrong with its sessions.tsv as a whole, and with tables that write its id otherwise."""
        found: defaultdict[str, list[Fault]] = defaultdict(list)
        for subject, fault in self.broken.items():
            found[subject].append(fault)
        for right, fault in self._other_spellings.values():
            found[right].append(fault)
        return dict(found)

    def findings(self) -> Iterator[Finding]:
        """What is odd about the tables as a whole; nobody is left out for it."""
        known = {*self._of_visits, *self._folders, *self.with_images, *self._other_spellings}
        known |= {*self._with_ids[0].of_subjects} if self._with_ids else set()
        for table in self._with_ids:
            if lines := [str(row.line) for row in table.rows if "participant_id" not in row.cells]:
                yield _warn(f"{table.path}: line {several(lines)}: no participant_id; passed over")
            if strangers := sorted({*table.of_subjects} - known):
                yield _warn(f"{table.path}: in no other table, and without a folder: {several(strangers)}")
        for path in self.empty:
            yield _warn(f"{path}: is empty; taken as if it were not there")
        for path in self._other_formats():
            yield _warn(f"{path}: is not read; save it as tab-separated text, {path.name.split('.')[0]}.tsv")

    @cached_property
    def _other_spellings(self) -> Mapping[str, tuple[str, Fault]]:
        """Subjects that a table writes otherwise than the folders or the tables before it, with the right name.

        Where one source has both names, they are two people.
        """
        sources = [{*self._of_visits, *self._folders, *self.with_images}]
        sources += [{*table.of_subjects} for table in self._with_ids]
        names: defaultdict[str, dict[str, None]] = defaultdict(dict)
        for source in sources:
            for subject in sorted(source):
                names[alike(subject)][subject] = None
        right = {
            other: first
            for first, *others in map(list, names.values())
            for other in others
            if not any(len(source & {first, *others}) > 1 for source in sources)
        }
        return {
            subject: (right[subject], _spelled(rows[0], right[subject]))
            for table in self._with_ids
            for subject, rows in table.of_subjects.items()
            if subject in right
        }

    @property
    def _with_ids(self) -> list[Table]:
        """The tables of many patients, participants.tsv first."""
        return [table for table in (self.participants, *self.phenotype, self.relapses) if table is not None]

    @property
    def _of_visits(self) -> set[str]:
        """Subjects with a sessions.tsv."""
        return {*self.sessions, *self.broken}

    @property
    def _folders(self) -> set[str]:
        return {path.name for path in self.root.glob("sub-*") if is_subject(path.name) and path.is_dir()}

    def _other_formats(self) -> list[Path]:
        phenotype = self.root / _PHENOTYPE
        beside = {path.name.split(".")[0] for path in phenotype.glob("*.tsv")} if phenotype.is_dir() else set()
        others = sorted(phenotype.glob("*")) if phenotype.is_dir() else []
        found = [path for path in others if path.name.split(".")[0] not in beside and is_other_format(path.name)]
        return found if self.participants else [*not_tsv(self.root, "participants.tsv"), *found]


def _asked_for(path: Path, wanted: Collection[str]) -> Table | None:
    """A table of phenotype/ that holds a column that is asked for; any other may be what it likes."""
    try:
        table = read_table(path, [])
    except InputError:
        with path.open(encoding="utf-8", errors="replace") as stream:
            header = {name.strip().lower() for name in re.split(r"[\t;,|]", stream.readline(2**16))}
        if "\0" not in "".join(header) and not header & {*wanted}:
            return None
        raise
    if table is None:
        return None
    if not {*table.columns} & {*wanted}:
        meant = {part.strip(' "') for name in table.columns for part in re.split("[;,|]", name)}
        read_table(path, sorted(meant & {*wanted}))  # refused with the fix where there is any: none is a column
        return None
    if "participant_id" not in table.columns:
        raise InputError(f"{path}: line 1: no tab-separated column participant_id; add it to the first line")
    return table


def _broken(path: Path, error: str) -> Fault:
    text = error.removeprefix(f"{path}: ")
    line = _LINE.match(text)
    row = Row(path, int(line[1]) if line else 1, {}, 0, 0)
    return Fault(row, "", text[line.end() :] if line else text)


def _spelled(row: Row, right: str) -> Fault:
    found = f"{row.cells['participant_id']!r} for {right}"
    return Fault(row, "participant_id", "expected ids written alike", found, ALIKE)


def _warn(text: str) -> Finding:
    return Finding("warn", None, "tables", text)
