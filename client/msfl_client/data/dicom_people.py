"""Who is who: which person and visit a DICOM study is of, kept in `sourcedata/subjects.tsv` for its account alone.

A study (StudyInstanceUID) is of one person and one visit, whatever midnight it went over; two studies of a person on
one day are one visit. One PatientID is one person, unless birth date or sex, or the name where no birth date confirms,
contradict. A PatientID that says nothing, as ANON does, needs a birth date or a name beside it.
"""

from __future__ import annotations

import datetime
import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from msfl_common.errors import InputError
from msfl_common.system.files import write_bytes
from msfl_common.system.tab_separated import read_tsv

SUBJECTS = Path("sourcedata", "subjects.tsv")
_FORMER = ("participant_id", "session_id", "patient", "date")  # of earlier versions, which knew no more
_COLUMNS = (*_FORMER, "birth_date", "sex", "name", "study")
_VAGUE = re.compile(
    r"|(?:anon|anonym|unknown|none|null|na|noname|patient|pat|subject|test|deident|deidentified|removed|default|hidden"
    r"|confidential|phantom|x+|0+|9+|1|123\d*|id|name|mrn)(?:y?mous|y?mi[sz]ed|y?m|e|o|id|patient|name|ized|ised)*\d{0,2}"
)

People = Literal["by-identity", "by-patient-id", "by-study"]


@dataclass(frozen=True)
class Person:
    """What a study says of who it is of; each may be empty.

    Attributes:
        patient: PatientID.
        birth_date: as 1961-02-03.
        sex: F or M.
        name: PatientName.
    """

    patient: str
    birth_date: str = ""
    sex: str = ""
    name: str = ""

    @property
    def is_vague(self) -> bool:
        """Whether the PatientID may be anybody's."""
        return _is_vague(self.patient)

    @property
    def is_nobody(self) -> bool:
        """Whether nothing at all tells who it is."""
        return self.is_vague and not self.birth_date and _is_vague(self.name)


@dataclass(frozen=True)
class Study:
    """A study: its StudyInstanceUID, or what stands for one, its day as 2021-06-07 or empty, and whose it is."""

    uid: str
    date: str
    person: Person


@dataclass(frozen=True)
class _Row:
    subject: str
    visit: str
    patient: str
    date: str
    birth_date: str = ""
    sex: str = ""
    name: str = ""
    study: str = ""

    @property
    def person(self) -> Person:
        return Person(self.patient, self.birth_date, self.sex, self.name)

    @property
    def is_former(self) -> bool:
        """Whether an earlier version wrote it, which kept neither study nor birth date."""
        return not self.study


@dataclass
class Labels:
    """Which subject and visit each study is.

    Attributes:
        of_study: (subject, visit) of each study's uid.
        questions: why a study can be given to nobody.
        notes: what a person may want to look at.
        dates: day of each (subject, visit), where known.
    """

    of_study: dict[str, tuple[str, str]] = field(default_factory=dict)
    questions: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    dates: dict[tuple[str, str], datetime.date] = field(default_factory=dict)


def label_studies(bids: Path, studies: Sequence[Study], people: People = "by-identity") -> Labels:
    """Give each study its subject and visit, and keep it before any image is written, so that nobody gets two.

    Subjects are numbered afresh, in an order that tells nothing; visits by date.

    Raises:
        InputError: subjects.tsv cannot be read.
    """
    rows = list(_read_rows(bids / SUBJECTS))
    labels = Labels()
    contradicted = _studies_of_several(studies)
    unknown = _nobodies(studies, rows) if people == "by-identity" else {}
    whose: list[tuple[Study, str]] = []
    for study in sorted(studies, key=lambda one: _order(one, people)):
        found = contradicted.get(study.uid) or unknown.get(study.uid) or _subject_of(study, rows, people)
        if isinstance(found, str):
            labels.questions[study.uid] = found
            continue
        subject = found[0] if found else _next_subject(bids, rows)
        whose.append((study, subject))
        if all(row.study != study.uid for row in rows):
            rows.append(_row_of(study, subject))
    for study, subject in sorted(whose, key=lambda pair: (pair[1], pair[0].date, pair[0].uid)):
        rows, visit = _with_visit(rows, study, subject)
        labels.of_study[study.uid] = (subject, visit)
    labels.dates = _dates(rows)
    labels.notes = _notes(rows, set(labels.of_study))
    if labels.of_study:
        _write_rows(bids / SUBJECTS, rows)
    return labels


def _subject_of(study: Study, rows: Sequence[_Row], people: People) -> list[str] | str:
    """The subject of a study, none for a new one, or why it cannot be told."""
    if known := [row for row in rows if row.study == study.uid]:
        if people == "by-identity" and not _fits(study.person, [row.person for row in known]):
            return f"subjects.tsv has its StudyInstanceUID under another person, {known[0].subject}"
        return [known[0].subject]
    if people == "by-study":
        return []
    person = study.person
    candidates: defaultdict[str, list[_Row]] = defaultdict(list)
    for row in rows:
        former_name = row.is_former and not person.patient and _same_id(row.patient, person.name)
        if _same_id(row.patient, person.patient) or former_name:
            candidates[row.subject].append(row)
    if people == "by-patient-id":
        return sorted(candidates)[:1]
    fitting = sorted(name for name, own in candidates.items() if _fits(person, [row.person for row in own]))
    if person.is_vague:
        if any(row.is_former for name in fitting for row in candidates[name]):
            return (
                f"an earlier version took PatientID {person.patient or '(none)'} for one person, {fitting[0]}; "
                "import into a new BIDS folder"
            )
        doubtful = fitting
        fitting = [name for name in fitting if any(_confirms(person, row.person) for row in candidates[name])]
        if doubtful and not fitting:
            return (
                f"PatientID {person.patient or '(none)'}: it may be of {doubtful[0]} or of somebody else; say `people` "
                "in a rules file"
            )
    if len(fitting) > 1:
        return f"it may be of {' or '.join(fitting)}, who have one PatientID; its birth date, sex and name do not tell"
    return fitting


def _fits(person: Person, known: Sequence[Person]) -> bool:
    """Whether a person may be one of whom several studies are known."""
    if any(_differs(person.birth_date, one.birth_date) or _differs(person.sex, one.sex) for one in known):
        return False
    named = [one for one in known if not _is_vague(one.name)]
    return not named or not all(_is_named_otherwise(person, one) for one in named)


def _differs(one: str, other: str) -> bool:
    return bool(one and other and one != other)


def _is_named_otherwise(one: Person, other: Person) -> bool:
    """Whether names tell two apart; of one number and birth date, a name may have been changed."""
    if _is_vague(one.name) or _words(one.name) & _words(other.name):
        return False
    return one.is_vague or not (one.birth_date and one.birth_date == other.birth_date)


def _confirms(one: Person, other: Person) -> bool:
    """Whether something besides a PatientID that says nothing shows two to be one; 1 January is often made up."""
    if one.birth_date and one.birth_date == other.birth_date and not one.birth_date.endswith("-01-01"):
        return True
    return not _is_vague(one.name) and bool(_words(one.name) & _words(other.name))


def _studies_of_several(studies: Iterable[Study]) -> dict[str, str]:
    """Studies whose files name people that contradict each other."""
    people: defaultdict[str, list[Person]] = defaultdict(list)
    for study in studies:
        people[study.uid].append(study.person)
    return {
        uid: "its StudyInstanceUID is given to several people"
        for uid, found in people.items()
        if any(not _same_id(found[0].patient, one.patient) or not _fits(one, found) for one in found)
    }


def _nobodies(studies: Iterable[Study], rows: Sequence[_Row]) -> dict[str, str]:
    """Studies of which nothing tells whose they are, where there are several: one person's or several people's."""
    known = {row.study: row for row in rows if row.person.is_nobody}
    found = {study.uid: study for study in studies if study.person.is_nobody and study.uid not in known}
    if len(found) + len(known) < 2:
        return {}
    return {
        uid: f"PatientID {study.person.patient or '(none)'} without birth date and name stands for "
        f"{len(found) + len(known)} studies, of one person or of several; say `people` in a rules file"
        for uid, study in found.items()
    }


def _with_visit(rows: Sequence[_Row], study: Study, subject: str) -> tuple[list[_Row], str]:
    """The rows with the study's visit in them; it takes the place of an earlier version's row of that visit."""
    own = [row for row in rows if row.subject == subject and row.visit]
    same_day = (row.visit for row in own if row.date == (study.date or study.uid[:10]))
    visit = next((row.visit for row in own if row.study == study.uid), None) or next(same_day, None)
    if visit is None:
        taken = {row.visit for row in own}
        visit = next(name for number in range(1, 10**4) if (name := f"ses-{number:02d}") not in taken)
    kept = [row for row in rows if not (row.is_former and (row.subject, row.visit) == (subject, visit))]
    return [replace(row, visit=visit) if row.study == study.uid else row for row in kept], visit


def _row_of(study: Study, subject: str) -> _Row:
    """A row whose visit is still to be found."""
    person = study.person
    return _Row(subject, "", person.patient, study.date, person.birth_date, person.sex, person.name, study.uid)


def _next_subject(bids: Path, rows: Sequence[_Row]) -> str:
    taken = {entry.name for entry in bids.iterdir()} | {row.subject for row in rows}
    return next(name for number in range(1, 10**6) if (name := f"sub-{number:03d}") not in taken)


def _dates(rows: Iterable[_Row]) -> dict[tuple[str, str], datetime.date]:
    dates: dict[tuple[str, str], datetime.date] = {}
    for row in rows:
        try:
            day = datetime.date.fromisoformat(row.date)
        except ValueError:
            continue
        key = (row.subject, row.visit)
        dates[key] = min(day, dates.get(key, day))
    return dates


def _notes(rows: Sequence[_Row], new: set[str]) -> list[str]:
    """One PatientID that is several people, and visits of several studies."""
    subjects: defaultdict[str, set[str]] = defaultdict(set)
    studies: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for row in rows:
        if row.patient:
            subjects[row.patient].add(row.subject)
        if row.study:
            studies[row.subject, row.visit].add(row.study)
    touched = {row.patient for row in rows if row.study in new}
    notes = [
        f"PatientID {patient} is {len(found)} people, by birth date, sex or name: {', '.join(sorted(found))}"
        for patient, found in sorted(subjects.items())
        if len(found) > 1 and patient in touched
    ]
    return notes + [
        f"{subject} {visit} holds {len(found)} studies of one day"
        for (subject, visit), found in sorted(studies.items())
        if len(found) > 1 and found & new
    ]


def _order(study: Study, people: People) -> tuple[bytes, bool, str, str]:
    """An order of people that tells nothing of them; of one number, studies that say most of a person come first."""
    key = study.uid if people == "by-study" else study.person.patient
    return hashlib.sha256(key.encode()).digest(), not study.person.birth_date, study.date, study.uid


def _is_vague(text: str) -> bool:
    return _VAGUE.fullmatch(re.sub(r"[^a-z0-9]+", "", text.lower())) is not None


def _same_id(one: str, other: str) -> bool:
    return _bare(one) == _bare(other)


def _bare(text: str) -> str:
    """As dcm2niix, whose word an earlier version took, writes it: other characters were `_`."""
    return re.sub(r"[^A-Za-z0-9]", "_", text.strip())


def _words(name: str) -> set[str]:
    return {word for word in re.split(r"[\W_]+", name.lower()) if len(word) > 1}


def _read_rows(path: Path) -> Iterator[_Row]:
    try:
        table = read_tsv(path, any_case=False)
        table.check_lengths()
    except FileNotFoundError:
        return
    except InputError as error:
        raise InputError(f"{error}, or restore it from a backup") from None
    if table.columns not in (_FORMER, _COLUMNS):
        raise InputError(f"{path}: expected the columns {', '.join(_COLUMNS)}; restore it from a backup")
    yield from (_Row(*line.cells) for line in table.lines)


def write_private_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A tab-separated table that its account alone may read, in a folder that it alone may enter."""
    lines = ["\t".join(" ".join(cell.split()) for cell in row) for row in (columns, *rows)]
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_bytes(path, ("\n".join(lines) + "\n").encode(), secret=True)


def _write_rows(path: Path, rows: Iterable[_Row]) -> None:
    cells = [
        (row.subject, row.visit, row.patient, row.date, row.birth_date, row.sex, row.name, row.study) for row in rows
    ]
    write_private_table(path, _COLUMNS, sorted(cells))
