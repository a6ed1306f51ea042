"""Tab-separated tables as BIDS has them: UTF-8, a line a row, and no quoting.

By the BIDS specification (Tabular files) a quotation mark is a character like any other: a cell that holds a lone one
ends at its tab, and never swallows the lines below it, as it would where quoting is read as in CSV.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from msfl_common.errors import InputError, unreadable

_LINE_END = re.compile(r"\r\n|\r|\n")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_SAVE = "save it as tab-separated UTF-8"
# What files begin with that only look like such a table.
_OTHER_FORMATS: Mapping[bytes, str] = {
    b"\xff\xfe": "is UTF-16, as spreadsheets write Unicode text",
    b"\xfe\xff": "is UTF-16, as spreadsheets write Unicode text",
    b"PK\x03\x04": "is a spreadsheet's own file",
    b"\xd0\xcf\x11\xe0": "is a spreadsheet's own file",
}


@dataclass(frozen=True)
class Line:
    """A line of a table: its number, the header being 1, and its cells as they stand."""

    number: int
    cells: tuple[str, ...]


@dataclass(frozen=True)
class TsvFile:
    """A table as a file has it: the names of its columns, and every line below them that is not blank."""

    path: Path
    columns: tuple[str, ...]
    lines: tuple[Line, ...]

    def whole_rows(self) -> list[tuple[int, dict[str, str]]]:
        """Number and cells by column of the lines with a cell for each column."""
        pairs = [(line.number, line.cells) for line in self.lines if len(line.cells) == len(self.columns)]
        return [(number, dict(zip(self.columns, cells, strict=True))) for number, cells in pairs]

    def check_lengths(self) -> None:
        """Refuse a line with too few or too many cells, which shifts them.

        Raises:
            InputError: the first such line.
        """
        for line in self.lines:
            if len(line.cells) != len(self.columns):
                raise InputError(f"{self.path}: line {line.number}: {self.length_fault(line)}")

    def length_fault(self, line: Line) -> str:
        """What is wrong with a line of another length, for a line of text."""
        return f"expected {len(self.columns)} cells as in the first line, found {len(line.cells)}"


def number_of(text: str) -> float:
    """The finite number that a cell states; NaN where it states none: Python reads 1_0 as ten, and inf as a number."""
    value = float(text) if _NUMBER.fullmatch(text) else math.nan
    return value if math.isfinite(value) else math.nan


def read_tsv(path: Path, needed: Sequence[str] = (), *, any_case: bool = True) -> TsvFile:
    """Read a table with a header; cells are without spaces at their ends.

    Args:
        path: the file.
        needed: columns that must be there.
        any_case: whether names of columns may be in capitals, and are brought to small letters.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: it cannot be read; or a needed column is not in it, or one is in it twice.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder; name the table's file") from None
    except OSError as error:
        raise InputError(f"{path}: {unreadable(error)}") from None
    first, *rest = _LINE_END.split(_text(path, content))
    columns = tuple(name.strip().lower() if any_case else name.strip() for name in first.split("\t"))
    if lacking := [name for name in needed if name not in columns]:
        raise InputError(f"{path}: line 1: no tab-separated column {' and '.join(lacking)}; {_header_fix(first)}")
    if twice := sorted({name for name in columns if name and columns.count(name) > 1}):
        raise InputError(f"{path}: column {twice[0]} is there twice; remove or rename one")
    lines = [
        Line(number, tuple(cell.strip() for cell in text.split("\t")))
        for number, text in enumerate(rest, start=2)
        if text.strip()
    ]
    return TsvFile(path, columns, tuple(lines))


def tsv_text(lines: Iterable[Iterable[object]]) -> str:
    """Lines of cells as text; as nothing can be quoted, a tab or line end within a cell becomes a space."""
    return "".join("\t".join(re.sub(r"[\t\r\n]+", " ", str(cell)) for cell in line) + "\n" for line in lines)


def _text(path: Path, content: bytes) -> str:
    for start, what in _OTHER_FORMATS.items():
        if content.startswith(start):
            raise InputError(f"{path}: line 1: cannot be read as text: it {what}; {_SAVE}")
    if (at := content.find(b"\0")) >= 0:
        line = content.count(b"\n", 0, at) + 1
        raise InputError(f"{path}: line {line}: cannot be read as text: it is UTF-16, or damaged; {_SAVE}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        found = f"byte 0x{content[error.start]:02x} is not UTF-8"
        raise InputError(f"{path}: line {line}: cannot be read as text ({found}); {_SAVE}") from None


def _header_fix(header: str) -> str:
    if "\t" not in header:
        for mark, name in ((";", "semicolons"), (",", "commas"), ("|", "bars")):
            if mark in header:
                return f"its columns are separated by {name}: {_SAVE}"
    if '"' in header:
        return "BIDS tables have no quotation marks: save it without them"
    return "add it to the first line" if header.strip() else "that line is empty"
