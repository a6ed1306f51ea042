"""The tab-separated tables of a site, read cell by cell: what may stand in each column, and where a fault lies.

A cell is missing when it is empty or reads n/a, na, nan, none or unknown. Numbers have a decimal point. Dates are ISO,
as 2021-03-24. Column names may be in capitals.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from types import MappingProxyType

from msfl_client.clinical.covariates import LARGEST_AGE, SEX
from msfl_common.errors import InputError, reason

MISSING = {"", "n/a", "na", "nan", "none", "unknown"}
DAYS_PER_YEAR = 365.25
_NUMBER = re.compile(r"[+-]?\d{1,9}(\.\d{1,12})?", re.ASCII)
_SHOWN_CHARACTERS = 40
_YES_NO = {"0": 0.0, "no": 0.0, "false": 0.0, "1": 1.0, "yes": 1.0, "true": 1.0}


@dataclass(frozen=True)
class Scale:
    """The numbers that a column may hold: from `low` to `high`, in steps where it has them."""

    low: float
    high: float
    step: float | None = None

    def __str__(self) -> str:
        steps = {None: "", 1.0: ", whole"}.get(self.step, f" in steps of {self.step}")
        return f"a number from {self.low:g} to {self.high:g}{steps}"


# Kurtzke, Neurology 1983. Whole numbers from 0 in each functional system.
FUNCTIONAL_SYSTEMS: Mapping[str, int] = MappingProxyType(
    {
        "fs_visual": 6,
        "fs_brainstem": 5,
        "fs_pyramidal": 6,
        "fs_cerebellar": 5,
        "fs_sensory": 6,
        "fs_bowel_bladder": 6,
        "fs_cerebral": 5,
        "fs_ambulation": 12,
    }
)
SCALES: Mapping[str, Scale] = MappingProxyType(
    {
        "age": Scale(0, LARGEST_AGE),
        "disease_duration": Scale(0, LARGEST_AGE),
        "edss": Scale(0, 10, 0.5),
        "relapses_prior_year": Scale(0, 50, 1.0),
        "new_lesions": Scale(0, 10_000, 1.0),
        "enlarging_lesions": Scale(0, 10_000, 1.0),
        **{name: Scale(0, highest, 1.0) for name, highest in FUNCTIONAL_SYSTEMS.items()},
    }
)
WORDS: Mapping[str, Mapping[str, float]] = MappingProxyType({"sex": SEX, "treated": _YES_NO})
DATE_COLUMNS = ("date", "acq_time")
NUMBER_COLUMNS: Mapping[str, float] = MappingProxyType(  # days of one unit
    {
        "days": 1.0,
        "days_from_baseline": 1.0,
        "years": DAYS_PER_YEAR,
        "years_from_baseline": DAYS_PER_YEAR,
    }
)


@dataclass(frozen=True)
class Row:
    """A line of a table.

    Attributes:
        path: the file.
        line: its number, the header being 1.
        cells: column, in small letters, to text; missing cells are not there.
        num_cells: cells on the line; another number than the header's shifts them.
        num_columns: columns of the header.
    """

    path: Path
    line: int
    cells: Mapping[str, str]
    num_cells: int
    num_columns: int

    def place(self, column: str) -> str:
        """Where a fault lies, for a line of text."""
        return f"{self.path}: line {self.line}, {column}"


@dataclass(frozen=True)
class Table:
    """A table as a file has it."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


def read_table(path: Path, needed: Sequence[str]) -> Table | None:
    """Read a table with a header; None where there is no such file.

    Raises:
        InputError: the file cannot be read, or a needed column is not in it, or one is in it twice.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, delimiter="\t")
            columns = tuple(name.strip().lower() for name in next(reader, []))
            lines = [(reader.line_num, line) for line in reader if any(cell.strip() for cell in line)]
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; grant read access") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as text ({reason(error)}); save it as tab-separated UTF-8") from None
    if lacking := [name for name in needed if name not in columns]:
        raise InputError(f"{path}: no tab-separated column {' and '.join(lacking)}; add it to the first line")
    if twice := sorted({name for name in columns if name and columns.count(name) > 1}):
        raise InputError(f"{path}: column {twice[0]} is there twice; remove or rename one")
    return Table(path, columns, tuple(_row(path, columns, number, line) for number, line in lines))


def parse_value(column: str, text: str) -> float:
    """The number that a cell stands for.

    Raises:
        ValueError: it is none that the column may hold; says what is expected.
    """
    if column in WORDS:
        word = WORDS[column].get(text.lower())
        if word is None:
            raise ValueError(f"expected {', '.join(WORDS[column])}, found {_shown(text)}")
        return word
    scale = SCALES[column]
    value = float(text) if _NUMBER.fullmatch(text) else math.nan
    fits = scale.low <= value <= scale.high and (scale.step is None or (value / scale.step).is_integer())
    if not fits:
        raise ValueError(f"expected {scale}, found {_shown(text)}")
    return value


def parse_time(row: Row) -> tuple[str, float] | None:
    """When a row was: ("date", day number) or ("number", days since baseline); None when it does not say.

    A date column goes before a number column.

    Raises:
        ValueError: the cell is neither; names its place.
    """
    for column in DATE_COLUMNS:
        if text := row.cells.get(column):
            try:
                return "date", float(_day(text))
            except ValueError:
                expected = "expected a date as 2021-03-24"
                raise ValueError(f"{row.place(column)}: {expected}, found {_shown(text)}") from None
    for column, days in NUMBER_COLUMNS.items():
        if text := row.cells.get(column):
            if not _NUMBER.fullmatch(text):
                raise ValueError(f"{row.place(column)}: expected a number, found {_shown(text)}")
            return "number", float(text) * days
    return None


def time_place(row: Row) -> str:
    """The place of a row's time, for a line of text."""
    columns = (*DATE_COLUMNS, *NUMBER_COLUMNS)
    return row.place(next((column for column in columns if column in row.cells), "time"))


def _day(text: str) -> int:
    try:
        return date.fromisoformat(text).toordinal()
    except ValueError:
        return datetime.fromisoformat(text).date().toordinal()


def _row(path: Path, columns: Sequence[str], number: int, line: Sequence[str]) -> Row:
    pairs = ((name, " ".join(cell.split())) for name, cell in zip(columns, line, strict=False))
    cells = {name: text for name, text in pairs if text.lower() not in MISSING}
    return Row(path, number, cells, len(line), len(columns))


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}...")
