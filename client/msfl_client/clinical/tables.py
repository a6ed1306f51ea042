"""The tab-separated tables of a site, read cell by cell: what may stand in each column, and where a fault lies.

A cell is missing when it is empty or reads n/a, na, nan, none or unknown. Numbers have a decimal point. Dates are ISO,
as 2021-03-24. Column names may be in capitals. Words are those of the values, and those that the site file adds. What
spreadsheets make of a cell (decimal commas, dates, separators of thousands) is named with its fix, never guessed.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

from msfl_client.clinical.covariates import SEX
from msfl_client.data.bids_tables import DATE_COLUMNS, NUMBER_COLUMNS, day_of, with_prefix
from msfl_common.config.clinical_values import CLINICAL_VALUES, MISSING, ClinicalValue, NumberValue
from msfl_common.system.tab_separated import Line, read_tsv

_NUMBER = re.compile(r"[+-]?\d{1,9}(\.\d{1,12})?", re.ASCII)
_SHOWN_CHARACTERS = 40
_OFF_STEP = 1e-6  # of a step, by which rounding misses it
_COMMA = re.compile(r"[+-]?[\d.' ]*\d,\d[\d.']*|[+-]?\d{1,3}(['. ]\d{3})+", re.ASCII)
_MONTH = r"[^\W\d]{3,9}\.?"
_MADE_A_DATE = re.compile(
    rf"\d{{1,2}}[./-]\d{{1,2}}[./-]\d{{2,4}}|\d{{1,2}}[. -]+{_MONTH}([. -]+\d{{2,4}})?|{_MONTH}[. -]+\d{{1,4}}"
)
_DAY_NUMBER = re.compile(r"\d{5}(\.\d+)?", re.ASCII)
_WITH_THOUSANDS, _BELOW_THOUSAND = re.compile(r"[1-9]\d{0,2}\.\d{3}", re.ASCII), re.compile(r"\d{1,3}", re.ASCII)
_NO_SEPARATORS = "write numbers with a decimal point, and thousands without a separator"
_NO_QUOTES = "BIDS tables have no quotation marks: save it without them"


READ: Mapping[str, ClinicalValue] = MappingProxyType(
    {
        **CLINICAL_VALUES,
        **{
            name: NumberValue(name=name, unit="lesions", range=(0, 10_000), step=1)
            for name in ("new_lesions", "enlarging_lesions")
        },
    }
)
"""What every study may read; what it declares itself is read, too."""
_WORDS: Mapping[str, Mapping[str, float]] = MappingProxyType({"sex": SEX})  # in place of the value's own


class CellError(ValueError):
    """A cell that its column may not hold.

    Attributes:
        expected: what it may hold; the same for all such cells of a column.
        found: what it holds, for a line of text.
        fix: what to do; empty where that follows from the rest.
    """

    def __init__(self, expected: str, found: str, fix: str = "") -> None:
        super().__init__(f"{expected}, found {found}{fix and '; '}{fix}")
        self.expected, self.found, self.fix = expected, found, fix


@dataclass(frozen=True)
class Reading:
    """How the cells of a folder's tables are read.

    Attributes:
        values: what may stand in each column that is read.
        words: column to word, in small letters, to number: the value's and those of the site file.
        doubtful: column to what is wrong with all of its cells, as the column as a whole shows.
    """

    values: Mapping[str, ClinicalValue]
    words: Mapping[str, Mapping[str, float]]
    doubtful: Mapping[str, CellError]


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

    @cached_property
    def of_subjects(self) -> Mapping[str, Sequence[Row]]:
        """Subject to its rows, where there is a column participant_id."""
        found: defaultdict[str, list[Row]] = defaultdict(list)
        for row in self.rows:
            if label := row.cells.get("participant_id"):
                found[with_prefix("sub-", label)].append(row)
        return dict(found)


def read_table(path: Path, needed: Sequence[str]) -> Table | None:
    """Read a table with a header; None where there is no such file.

    Raises:
        InputError: the file cannot be read, or a needed column is not in it, or one is in it twice.
    """
    try:
        found = read_tsv(path, needed)
    except FileNotFoundError:
        return None
    return Table(path, found.columns, tuple(_row(path, found.columns, line) for line in found.lines))


def words_of(
    values: Mapping[str, ClinicalValue], added: Mapping[str, Mapping[str, str]]
) -> Mapping[str, Mapping[str, float]]:
    """The words of each column that has some, with those of a site file, which gives a known word for each."""
    words = {name: dict(_WORDS.get(name, one.words)) for name, one in values.items() if one.words}
    for column, meanings in added.items():
        if column in words:
            words[column] |= {word.lower(): words[column][meaning] for word, meaning in meanings.items()}
    return words


def doubtful_columns(tables: Iterable[Table], words: Mapping[str, Mapping[str, float]]) -> dict[str, CellError]:
    """Columns of which no cell can be read with certainty, for what stands in them as a whole.

    Where a value is one of two, a word is unknown and all the others mean the same, theirs is in doubt too: beside H
    (hombre), M is mujer. Days that are whole and below 1000, or have a point before three digits, have separators of
    thousands: 1.095 would be read as a day, and is three years.
    """
    texts: dict[str, set[str]] = {name: set() for name in (*words, *NUMBER_COLUMNS)}
    for table in tables:
        for row in table.rows:
            for name in texts.keys() & row.cells.keys():
                texts[name].add(row.cells[name])
    doubtful = {}
    for column in (name for name in words if len(set(words[name].values())) == 2):
        meant = {text: _meant(words[column], text) for text in texts[column]}
        known = {text for text, value in meant.items() if value is not None}
        unknown = texts[column] - known
        if unknown and len({meant[text] for text in known}) < 2:
            doubtful[column] = _unknown_word(column, words[column], sorted(unknown), sorted(known))
    for column in (name for name, unit in NUMBER_COLUMNS.items() if unit == 1):
        split = {text for text in texts[column] if _WITH_THOUSANDS.fullmatch(text)}
        if split and all(_BELOW_THOUSAND.fullmatch(text) for text in texts[column] - split):
            doubtful[column] = CellError("expected days", _shown(min(split)), _NO_SEPARATORS)
    return doubtful


def parse_value(column: str, text: str, reading: Reading) -> float:
    """The number that a cell stands for.

    Raises:
        CellError: it is none that the column may hold.
    """
    if column in reading.doubtful:
        raise reading.doubtful[column]
    if column in reading.words:
        if (meant := _meant(reading.words[column], text)) is None:
            raise _unknown_word(column, reading.words[column], [text])
        return meant
    value = reading.values[column]
    assert isinstance(value, NumberValue)
    (low, high), step = value.range, value.step
    number = float(text) if _NUMBER.fullmatch(text) else math.nan
    if not low <= number <= high or (step is not None and abs(number / step - round(number / step)) > _OFF_STEP):
        is_other = column not in READ and not math.isnan(number)
        fix = f"expected in {value.unit}: correct it, or write n/a" if is_other else _fix_of_number(text)
        raise CellError(f"expected {value.in_words}", _shown(text), fix)
    return number


def _meant(words: Mapping[str, float], text: str) -> float | None:
    """What a word means; a spreadsheet may have made 1.0 of 1."""
    word = text.lower()
    return words.get(word, words.get(word.removesuffix(".0")))


def parse_time(row: Row, reading: Reading) -> tuple[str, float] | None:
    """When a row was: ("date", day number) or ("number", days since baseline); None when it does not say.

    A date column goes before a number column.

    Raises:
        CellError: the cell is neither.
    """
    column = time_column(row)
    text = row.cells.get(column)
    if text is None:
        return None
    if column in DATE_COLUMNS:
        try:
            return "date", float(day_of(text))
        except ValueError:
            raise CellError("expected a date as 2021-03-24", _shown(text), _fix_of_date(text)) from None
    if column in reading.doubtful:
        raise reading.doubtful[column]
    if not _NUMBER.fullmatch(text):
        raise CellError("expected a number", _shown(text), _fix_of_number(text))
    return "number", float(text) * NUMBER_COLUMNS[column]


def time_column(row: Row) -> str:
    """The column that says when a row was; "time" where none does."""
    return next((column for column in (*DATE_COLUMNS, *NUMBER_COLUMNS) if column in row.cells), "time")


def time_place(row: Row) -> str:
    """The place of a row's time, for a line of text."""
    return row.place(time_column(row))


def _row(path: Path, columns: Sequence[str], line: Line) -> Row:
    pairs = ((name, " ".join(cell.split())) for name, cell in zip(columns, line.cells, strict=False))
    cells = {name: text for name, text in pairs if text.lower() not in MISSING}
    return Row(path, line.number, cells, len(line.cells), len(columns))


def _unknown_word(
    column: str, known: Mapping[str, float], found: Sequence[str], doubtful: Sequence[str] = ()
) -> CellError:
    example = {"sex": "W: female", "treated": "ja: yes"}.get(column)
    fix = f"say in the site file what your words mean, as in `words: {{{column}: {{{example}}}}}`"
    fix = fix if example else "write one of these, as the study declares them, or n/a where it is not known"
    beside = f"; beside that, {', '.join(map(_shown, doubtful))} can mean either" if doubtful else ""
    return CellError(f"expected {', '.join(known)}", ", ".join(map(_shown, found[:5])) + beside, fix)


def _fix_of_number(text: str) -> str:
    """What a spreadsheet did to a number."""
    if '"' in text:
        return _NO_QUOTES
    if _NUMBER.fullmatch(text):
        return ""
    if text.startswith("#"):
        return "a spreadsheet's error: correct its formula, or write n/a"
    if _COMMA.fullmatch(text):
        return _NO_SEPARATORS
    return "a spreadsheet made a date of it: format the column as a number" if _MADE_A_DATE.fullmatch(text) else ""


def _fix_of_date(text: str) -> str:
    """What a spreadsheet did to a date."""
    if '"' in text:
        return _NO_QUOTES
    if _DAY_NUMBER.fullmatch(text):
        return "a spreadsheet's number of a day: format the column as yyyy-mm-dd"
    return "which is the day, and which the month? Format the column as yyyy-mm-dd" if _MADE_A_DATE.match(text) else ""


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}...")
