"""What is wrong with the lines of a site's tables, told once where many lines have the same fault."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from msfl_client.clinical.tables import Row
from msfl_client.data.findings import Finding

ALIKE = "write them alike in every table and folder; a spreadsheet drops leading zeros from a column that is no text"
_FEWEST_ALIKE = 4  # patients with one kind of fault that are told in one line
_SHOWN = 3


@dataclass(frozen=True)
class Fault:
    """What is wrong in a line of a table.

    Attributes:
        row: the line.
        column: which cell; empty for the line as a whole.
        expected: what is expected; the same for all faults of a kind.
        found: what is there; empty where `expected` says it.
        fix: what to do; empty where that follows from the rest.
    """

    row: Row
    column: str
    expected: str
    found: str = ""
    fix: str = ""

    def __str__(self) -> str:
        place = self.row.place(self.column) if self.column else f"{self.row.path}: line {self.row.line}"
        found = f", found {self.found}" if self.found else ""
        return f"{place}: {self.expected}{found}{self.fix and '; '}{self.fix}"


class Notes:
    """What is found while a patient's rows are read: `faults` leave the patient out, `warnings` do not."""

    def __init__(self, faults: Sequence[Fault] = ()) -> None:
        self.faults: list[Fault] = list(faults)
        self.warnings: list[str] = []

    def fault(self, row: Row, column: str, expected: str, found: str = "", fix: str = "") -> None:
        """Note a fault."""
        self.faults.append(Fault(row, column, expected, found, fix))


def findings_of(notes: Mapping[str, Notes]) -> list[Finding]:
    """Findings of all patients, by key: a kind of fault that many have in one line, the others one by one."""
    alike: defaultdict[tuple[str, ...], dict[str, list[Fault]]] = defaultdict(dict)
    for key, one in notes.items():
        for fault in one.faults:
            alike[_kind(fault)].setdefault(key, []).append(fault)
    together = {kind: of for kind, of in alike.items() if len(of) >= _FEWEST_ALIKE}
    findings = [Finding("fail", None, "clinical", _in_one_line(of)) for of in together.values()]
    for key, one in notes.items():
        findings += [Finding("fail", key, "clinical", str(f)) for f in one.faults if _kind(f) not in together]
        findings += [Finding("warn", key, "clinical", text) for text in one.warnings]
    return findings


def _kind(fault: Fault) -> tuple[str, ...]:
    return _files(fault.row), fault.column, fault.expected, fault.fix


def _files(row: Row) -> str:
    """The file; of the tables of single patients all of them together."""
    name, folder = row.path.name, row.path.parent.name
    return str(row.path.parents[1] / "sub-*" / "sub-*_sessions.tsv") if name.startswith(folder) else str(row.path)


def _in_one_line(of: Mapping[str, Sequence[Fault]]) -> str:
    faults = [fault for several in of.values() for fault in several]
    first = faults[0]
    where = _files(first.row)
    column = f", {first.column}" if first.column else ""
    shown = list(dict.fromkeys(fault.found for fault in faults if fault.found))
    found = f", found {', '.join(shown[:_SHOWN])}{' and others' if len(shown) > _SHOWN else ''}" if shown else ""
    lines = f"{len(faults)} lines" if where != str(first.row.path) else _lines(faults)
    fix = f"; {first.fix}" if first.fix else ""
    return f"{where}: {lines}{column}: {first.expected}{found}{fix}; {len(of)} patients are left out until then"


def _lines(faults: Sequence[Fault]) -> str:
    numbers = sorted({fault.row.line for fault in faults})
    return f"{len(numbers)} lines, the first {numbers[0]}" if len(numbers) > 1 else f"line {numbers[0]}"
