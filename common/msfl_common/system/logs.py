"""Logs that stay small and private: of a process that writes to its standard output, and of our own loggers.

A child writes to its log by itself, and may outlive or be killed without whoever started it, so nobody renames the
file under it: it is opened for appending, and when it has grown its content is copied to `NAME.1` and the file is cut
to nothing, in which it then goes on. What is written between the copy and the cut is lost: some lines, once in
megabytes.
"""

from __future__ import annotations

import logging
import logging.handlers
import os
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

MOST_BYTES = 10_000_000
_NUM_OLD = 4  # NAME.1, the newest, to NAME.4


def open_log(path: Path) -> BinaryIO:
    """Open a log for appending, mode 0600."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    os.fchmod(descriptor, 0o600)
    return os.fdopen(descriptor, "ab")


def bound_log(path: Path, most_bytes: int = MOST_BYTES) -> None:
    """Move a log's content to `NAME.1`, and that of `NAME.1` on, when it has grown; who writes to it goes on.

    A disk that is full keeps the end of the log from being kept, not from being cut.
    """
    try:
        if path.stat().st_size <= most_bytes:
            return
    except FileNotFoundError:
        return
    old = [path.with_name(f"{path.name}.{number}") for number in range(1, _NUM_OLD + 1)]
    try:
        for newer, older in reversed(list(pairwise(old))):
            if newer.exists():
                newer.replace(older)
        with path.open("rb") as source, open_log(old[0]) as kept:
            source.seek(max(0, path.stat().st_size - 2 * most_bytes))
            kept.write(source.read(2 * most_bytes))  # and no more: who writes may be faster than who copies
    except OSError:
        old[0].unlink(missing_ok=True)
    os.truncate(path, 0)


def log_handler(path: Path) -> logging.Handler:
    """A handler for a log of our own, mode 0600, that begins a new file when it has grown."""
    return _PrivateHandler(path, maxBytes=MOST_BYTES, backupCount=_NUM_OLD, delay=True, encoding="utf-8")


class _PrivateHandler(logging.handlers.RotatingFileHandler):
    def _open(self):  # type: ignore[no-untyped-def]
        open_log(Path(self.baseFilename)).close()
        return super()._open()
