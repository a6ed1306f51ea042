"""What has left the site: a table and totals for people, JSON for programs, a spreadsheet file for the record."""

from __future__ import annotations

import csv
import io
import json
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from msfl_client.egress.ledger_line import Line
from msfl_client.egress.ledger_proof import Proof
from msfl_common.system.files import write_text

# README's "What leaves a site" explains each.
COLUMNS = (
    "number", "time", "kind", "study", "round", "num_cases", "min_patients", "num_bytes", "arrays", "numbers", "sha256",
    "code", "late", "head_sent", "policy", "version", "format", "receipt", "previous", "hash", "signature", "in_sum",
    "epsilon", "delta", "releases",
)  # fmt: skip
CSV_START = ",".join(COLUMNS[: COLUMNS.index("in_sum")])  # of earlier versions, too
_SHOWN_DIGITS = 12
_WIDE_COLUMNS = 120
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


@dataclass(frozen=True)
class Total:
    """All messages of one kind in one study."""

    study: str
    kind: str
    messages: int
    num_bytes: int


@dataclass(frozen=True)
class Overview:
    """A whole ledger in short: its last entries, the number of all, and totals by study and kind."""

    last: tuple[Line, ...]
    num_lines: int
    totals: tuple[Total, ...]


def overview(lines: Iterable[Line], num_last: int) -> Overview:
    """A whole ledger in short.

    Args:
        lines: all of them; reading them checks them.
        num_last: entries shown.
    """
    last: deque[Line] = deque(maxlen=num_last)
    counts: dict[tuple[str, str], tuple[int, int]] = {}
    num_lines = 0
    for line in lines:
        last.append(line)
        num_lines = line.number
        messages, num_bytes = counts.get((line.study, line.kind), (0, 0))
        counts[line.study, line.kind] = (messages + 1, num_bytes + line.num_bytes)
    return Overview(tuple(last), num_lines, tuple(Total(*key, *counts[key]) for key in sorted(counts)))


def print_overview(console: Console, site: str, ledger: Overview) -> None:
    """Print the last entries and the totals; on a narrow terminal without what an export has, too."""
    wide = console.width >= _WIDE_COLUMNS
    entries = Table(title=f"What left {site}: last {len(ledger.last)} of {ledger.num_lines}", title_justify="left")
    for name in ("time (UTC)", "kind"):
        entries.add_column(name, no_wrap=True)
    entries.add_column("study", overflow="fold")
    for name in ("round", "size", "cases"):
        entries.add_column(name, justify="right")
    if wide:
        entries.add_column("arrays, numbers", justify="right")
        entries.add_column("SHA-256", no_wrap=True)
    for line in ledger.last:
        more: list[str | Text] = (
            [f"{len(line.arrays)}, {len(line.numbers)}", Text(line.sha256[:_SHOWN_DIGITS])] if wide else []
        )
        entries.add_row(
            Text(line.time[:19].replace("T", " ")),
            Text(line.kind),
            Text(line.study),
            str(line.round),
            decimal(line.num_bytes),
            str(line.num_cases),
            *more,
        )
    totals = Table(title="Totals", title_justify="left")
    totals.add_column("study", overflow="fold")
    totals.add_column("kind", overflow="fold")
    totals.add_column("messages", justify="right")
    totals.add_column("size", justify="right")
    for total in ledger.totals:
        totals.add_row(Text(total.study), Text(total.kind), str(total.messages), decimal(total.num_bytes))
    console.print(entries, totals)


def overview_document(site: str, ledger: Overview, proof: Proof) -> dict[str, Any]:
    """The overview as one JSON document."""
    newest = proof.countersigned.newest
    return {
        "schema_version": 1,
        "site": site,
        "num_lines": ledger.num_lines,
        "hash": ledger.last[-1].hash if ledger.last else None,
        "num_signed": ledger.num_lines - proof.num_unsigned,
        "receipts": proof.countersigned.number,
        "countersigned": {"number": newest.number, "time": newest.time} if newest else None,
        "totals": [asdict(total) for total in ledger.totals],
        "last": [line.model_dump() for line in ledger.last],
    }


def export_csv(path: Path, lines: Iterable[Line]) -> int:
    """Write every entry as a row of `path`, whole or not at all; returns the number of rows.

    No cell starts as a formula does: a quote stands before one that would, so that a spreadsheet shows it as text.
    """
    stream = io.StringIO(newline="")
    rows = csv.writer(stream)
    rows.writerow(COLUMNS)
    num_rows = 0
    for line in lines:
        rows.writerow(_cell(getattr(line, column)) for column in COLUMNS)
        num_rows += 1
    write_text(path, stream.getvalue())
    return num_rows


def _cell(value: object) -> str | int:
    if value is None:
        return ""
    if isinstance(value, int):
        return value
    if isinstance(value, BaseModel):
        value = value.model_dump()
    text = value if isinstance(value, str) else json.dumps(value)
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text
