"""The end of a file of lines, found from behind: its time does not grow with the file."""

from __future__ import annotations

import os
from typing import IO

BLOCK_BYTES = 65536


def last_line(stream: IO[bytes]) -> tuple[bytes, int]:
    """The last whole line, and where it ends; what a crash cut short behind it does not count."""
    start, tail = stream.seek(0, os.SEEK_END), b""
    while start > 0 and tail.count(b"\n") < 2:
        size = min(BLOCK_BYTES, start)
        start = stream.seek(start - size)
        tail = stream.read(size) + tail
    whole = tail[: tail.rfind(b"\n") + 1]
    return whole[:-1].rpartition(b"\n")[2], start + len(whole)
