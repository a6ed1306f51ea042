"""What people see: one console, and one progress display for everything that takes over two seconds.

Names, notes and errors come from others. Nothing that is printed here is markup, and nothing in it moves the cursor.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment

from msfl_common.system.foreign_text import harmless

LASTING_S = 2.0  # from here on a person wants to know what goes on

log = logging.getLogger(__name__)


class PlainConsole(Console):
    """A console to which text is text: no markup, emoji or highlights, and control characters as their codes."""

    def __init__(self, *, stderr: bool = False, soft_wrap: bool = False) -> None:
        super().__init__(stderr=stderr, soft_wrap=soft_wrap, markup=False, emoji=False, highlight=False)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """See `Console`; every text, of tables and bars too, passes here."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=harmless(segment.text))


# People read stderr; stdout stays free for results and `--json`. With `--quiet` it prints nothing.
console = PlainConsole(stderr=True)
errors = PlainConsole(stderr=True)


def warn(lines: Iterable[str]) -> None:
    """Say on stderr what a person should know, a line each, though the command goes on."""
    for line in lines:
        alert(f"warning: {line}")


def stdout_console(soft_wrap: bool = False) -> PlainConsole:
    """For results that are for people; with `soft_wrap` no line is broken."""
    return PlainConsole(soft_wrap=soft_wrap)


def alert(line: str) -> None:
    """Tell a person what `--quiet` does not keep from them; on stderr."""
    (errors if console.quiet else console).print(line, style="yellow", soft_wrap=True)


@contextmanager
def silence() -> Iterator[None]:
    """As with `--quiet`, for as long as the block lasts."""
    before, console.quiet = console.quiet, True
    try:
        yield
    finally:
        console.quiet = before


class _LoggedProgress(Progress):
    """Progress whose steps are logged, too, for `--verbose`."""

    def add_task(self, description: str, *args: Any, **settings: Any) -> TaskID:
        """See `Progress`."""
        log.debug("%s", description or "begins")
        return super().add_task(description, *args, **settings)


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
    hidden = console.quiet or not sys.stderr.isatty()
    with _LoggedProgress(*columns, console=console, disable=hidden) as progress:
        yield progress


@contextmanager
def busy(what: str) -> Iterator[None]:
    """Say what is being done that has no parts to count: beside a spinner in a terminal, else as a line if it lasts.

    It has no place within `progress_bars`, whose notes say it there.
    """
    if not console.quiet and sys.stderr.isatty():
        with console.status(harmless(what)):
            yield
        return
    line = threading.Timer(LASTING_S, lambda: console.print(what))
    line.daemon = True
    line.start()
    try:
        yield
    finally:
        line.cancel()
