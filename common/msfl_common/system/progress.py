"""What people see: one console, and one progress display for everything that takes over two seconds.

Names, notes and errors come from others. Nothing that is printed here is markup, and nothing in it moves the cursor.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment

from msfl_common.system.foreign_text import harmless


class PlainConsole(Console):
    """A console to which text is text: no markup, emoji or highlights, and control characters as their codes."""

    def __init__(self, *, stderr: bool = False, soft_wrap: bool = False) -> None:
        super().__init__(stderr=stderr, soft_wrap=soft_wrap, markup=False, emoji=False, highlight=False)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """See `Console`; every text, of tables and bars too, passes here."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=harmless(segment.text))


# People read stderr; stdout stays free for results and `--json`.
console = PlainConsole(stderr=True)


def warn(lines: Iterable[str]) -> None:
    """Say on stderr what a person should know, a line each, though the command goes on."""
    for line in lines:
        console.print(f"warning: {line}", style="yellow", soft_wrap=True)


def stdout_console(soft_wrap: bool = False) -> PlainConsole:
    """For results that are for people; with `soft_wrap` no line is broken."""
    return PlainConsole(soft_wrap=soft_wrap)


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """Progress bars on stderr when it is a terminal, else a display that draws nothing."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=console, disable=not sys.stderr.isatty()) as progress:
        yield progress
