"""The check of connection and machine as a table."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from msfl_client.connection.check import Row

_COLOURS = {"pass": "green", "warn": "yellow", "fail": "red", "skip": "dim"}


def print_connection(console: Console, rows: Sequence[Row]) -> None:
    """Print one row for each thing looked at, then what to do."""
    table = Table(title="Connection and machine", title_justify="left")
    table.add_column("what", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("found", overflow="fold")
    for row in rows:
        table.add_row(row.name, Text(row.level, style=_COLOURS[row.level]), Text(row.text))
    console.print(table)
    to_fix = [row for row in rows if row.fix]
    if to_fix:
        console.print("What to do:")
    for row in to_fix:
        console.print(Text(f"  {row.name}: {row.fix}"), soft_wrap=True)
