"""The site's record of every message that left it: JSON lines, each chained to the line before.

A line's `hash` is the SHA-256 of the line without it, in canonical JSON; `previous` is the hash of the line
before. An edited, deleted or reordered line breaks the chain at a line that `verify` names.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from msfl_common.errors import InputError

GENESIS = "0" * 64


@dataclass(frozen=True)
class Entry:
    """One outgoing message: what it was, never what it held."""

    kind: str
    study: str
    round: int
    arrays: dict[str, list[int]]
    numbers: list[str]
    num_bytes: int
    sha256: str
    num_cases: int
    version: str


def append(path: Path, entry: Entry) -> None:
    """Add a line and force it to disk; the caller sends only after this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        stream.seek(0)
        content = stream.read()
        # A line that a crash cut short was never followed by a message: writing comes before sending.
        whole = content[: content.rfind(b"\n") + 1]
        stream.truncate(len(whole))
        lines = whole.splitlines()
        previous = json.loads(lines[-1])["hash"] if lines else GENESIS
        body = {
            "number": len(lines) + 1,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            **asdict(entry),
            "previous": previous,
        }
        stream.write(_canonical({**body, "hash": _hash(body)}) + b"\n")
        stream.flush()
        os.fsync(stream.fileno())


def verify(path: Path) -> int:
    """Check the whole chain; returns the number of lines.

    Raises:
        InputError: the first line that was edited, deleted, inserted or moved.
    """
    previous = GENESIS
    number = 0
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            body: dict[str, Any] = json.loads(line)
            stated = body.pop("hash")
        except (ValueError, KeyError, AttributeError):
            raise InputError(f"{path}: line {number} is not a ledger line") from None
        if body.get("number") != number or body.get("previous") != previous:
            raise InputError(f"{path}: line {number} does not follow the line before it; a line was removed or moved")
        if _hash(body) != stated:
            raise InputError(f"{path}: line {number} was edited")
        previous = stated
    return number


def _canonical(body: dict[str, Any]) -> bytes:
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()


def _hash(body: dict[str, Any]) -> str:
    return hashlib.sha256(_canonical(body)).hexdigest()
