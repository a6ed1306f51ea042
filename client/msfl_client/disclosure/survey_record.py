"""What a site has told in surveys, over all studies, and what it tells next.

A survey's tables are fixed (`config.survey_tables`), and each number is rounded down to a multiple of the floor of the
site's own policy, never of a study's: multiples of several floors would meet in one number. What is left are surveys at
different times. So a number is told anew only where the patients behind it differ from those behind each number that
was told for that cell before by nobody, or by as many as the floor, in either direction; else the last one is repeated.
Where the number of all patients is repeated, so is each other: a larger one of a part would tell that somebody came.
Patients are known by their names. Of those who are gone altogether, and of those who were never there, as many as there
are of both may be the same, whose folders were renamed or put in another order: it has to hold if they are, too.

`survey/told.encrypted` in the state folder holds, for each cell, the numbers told and digests of the patients behind
them, encrypted with a key of the site's own (`site.account_files`). It is written, to the disk, before anything leaves;
`msfl-client reset-answers` does not forget it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from msfl_client.site.account_files import SUFFIX, read_account_file, write_account_file
from msfl_common.errors import AccountError, Code, InputError, RefusedError

FOLDER, _FILE = "survey", f"told{SUFFIX}"
_FORMER = "told.json"  # of earlier versions, in plain text


class Told(BaseModel):
    """A number that was told."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    number: int = Field(ge=0)
    patients: frozenset[str] = Field(description="digests of whom it is of")


_RECORD = TypeAdapter(dict[str, tuple[Told, ...]])  # by table and number of the cell, in the order of their telling


@dataclass(frozen=True)
class Record:
    """What was told, and what is to be.

    Attributes:
        path: the file.
        told: by cell.
        is_new: whether a number among them has not been told before.
    """

    path: Path
    told: Mapping[str, tuple[Told, ...]]
    is_new: bool = False

    def tell(self, cells: Mapping[str, Sequence[frozenset[str]]], floor: int) -> tuple[dict[str, list[int]], Record]:
        """The numbers to tell of these cells, by table, and the record with them.

        Args:
            cells: the patients of each cell, those of all first.
            floor: of the site's policy.
        """
        numbers: dict[str, list[int]] = {}
        told = dict(self.told)
        here = _digests(patients for members in cells.values() for patients in members)
        there = frozenset().union(*(one.patients for numbers in self.told.values() for one in numbers))
        is_held = False
        for table, members in cells.items():
            numbers[table] = []
            for place, patients in enumerate(members):
                name = f"{table}/{place}"
                before, of = told.get(name, ()), _digests([patients])
                if is_held and not before:  # a table that is new: counted now, it would tell who came or went
                    numbers[table].append(0)
                    continue
                told[name] = before if is_held else _with(before, of, floor, here ^ there)
                numbers[table].append(told[name][-1].number)
                is_held = is_held or (table == "patients" and told[name][-1].patients != of)
        is_new = any(len(one) > len(self.told.get(name, ())) for name, one in told.items())
        return numbers, Record(self.path, told, is_new)

    def keep(self) -> None:
        """Write it down.

        Raises:
            OSError: it cannot be written; nothing may leave then.
            AccountError: nor can it be encrypted.
        """
        write_account_file(self.path.parents[1], self.path, _RECORD.dump_json(dict(self.told)))


def read_record(state: Path) -> Record:
    """What a site has told.

    Raises:
        RefusedError: it cannot be read.
    """
    path = state / FOLDER / _FILE
    try:
        _encrypt_former(path)
        return Record(path, _RECORD.validate_json(read_account_file(state, path)) if path.exists() else {})
    except (OSError, ValidationError):
        raise RefusedError(
            Code.INTERNAL, f"{path}: what was told in surveys cannot be read; restore it from a backup"
        ) from None
    except InputError as error:
        raise RefusedError(Code.INTERNAL, f"what was told in surveys cannot be read: {error}") from None


def _encrypt_former(path: Path) -> None:
    """Encrypt what an earlier version wrote in plain text; where that was cut short, it is done again."""
    former = path.with_name(_FORMER)
    if former.exists():
        if path.exists() and former.stat().st_mtime_ns > path.stat().st_mtime_ns:
            raise AccountError(
                f"{former}: an earlier version of MSFL told numbers here after this one had begun to; move one of the "
                f"two away, {former.name} or {path.name}"
            )
        if not path.exists():
            Record(path, _RECORD.validate_json(former.read_bytes())).keep()
        former.unlink()


def rounded(number: int, floor: int) -> int:
    """A number of patients, down to a multiple of the floor."""
    return number // floor * floor


def _with(
    before: tuple[Told, ...], patients: frozenset[str], floor: int, strangers: frozenset[str]
) -> tuple[Told, ...]:
    """What was told of a cell, what is told now at the end; `strangers` are of before or of now alone."""
    if (same := next((one for one in before if one.patients == patients), None)) is not None:
        return (*(one for one in before if one is not same), same)
    for one in before:
        more, fewer = patients - one.patients, one.patients - patients
        renamed = min(len(more & strangers), len(fewer & strangers))
        if any(0 < len(few) - same < floor for few in (more, fewer) for same in (0, renamed)):
            return before
    return (*before, Told(number=rounded(len(patients), floor), patients=patients))


def _digests(groups: Iterable[frozenset[str]]) -> frozenset[str]:
    return frozenset(hashlib.sha256(one.encode()).hexdigest()[:16] for patients in groups for one in patients)
