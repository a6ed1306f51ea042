"""The site's record of every message that left it: JSON lines, each chained to the line before.

A line's `hash` is the SHA-256 of the line without it, in canonical JSON; `previous` is the hash of the line
before. An edited, inserted, deleted or reordered line breaks the chain at a line that `verify` names. Lines cut
off the end would leave a whole chain, so `ledger.head`, written after each line, holds the number and hash of the
last one. It may be one line behind, where a crash came between the two writes; ahead of the ledger it never is.

This finds whatever touches one of the two files. It does not protect from someone who rewrites both, or deletes
both: who may write in the state folder can forge a ledger from its first line on. Against that, note the number
and the hash of the last line (`msfl-client ledger --verify` shows them) outside of this machine from time to time.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from msfl_common.errors import Code, InputError, RefusedError
from msfl_common.files import private_folder, write_text

LEDGER_FILE = "ledger.jsonl"
_BLOCK_BYTES = 65536


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Entry(_Frozen):
    """One outgoing message: what it was, never what it held."""

    kind: str
    study: str
    round: int
    arrays: dict[str, list[int]]
    numbers: list[str]
    num_bytes: int
    sha256: str
    num_cases: int
    min_patients: int = 0  # behind any figure in it; older lines do not say
    version: str


class Head(_Frozen):
    """Where a ledger ends: the number and the hash of its last line."""

    number: int = 0
    hash: str = "0" * 64


class Line(Entry):
    """An entry with its number, its time (UTC, ISO 8601) and its place in the chain."""

    number: int
    time: str
    previous: str
    hash: str

    @property
    def head(self) -> Head:
        """The head of a ledger that ends here."""
        return Head(number=self.number, hash=self.hash)

    @property
    def head_before(self) -> Head:
        """The head that the ledger had before this line."""
        return Head(number=self.number - 1, hash=self.previous)


def append(path: Path, entry: Entry) -> None:
    """Add a line and force it to disk; the caller sends only after this returns.

    Only the last line is read, so the time does not grow with the ledger.

    Raises:
        RefusedError: the end of the ledger was touched; with the code INTERNAL. The files stay as found.
    """
    private_folder(path.parent)
    with path.open("a+b") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        raw, end = _last_line(stream)
        try:
            last = _parse(raw, path, "the last line") if end else None
            is_behind = _is_behind(path, last)
        except InputError as error:
            raise RefusedError(Code.INTERNAL, str(error)) from None
        if last is not None and is_behind:
            _write_head(path, last.head)  # before the next line: two behind would look like tampering
        # A line that a crash cut short was never followed by a message: writing comes before sending.
        stream.truncate(end)
        line = _chain(entry, last.head if last else Head())
        stream.write(_canonical(line.model_dump()) + b"\n")
        stream.flush()
        os.fsync(stream.fileno())
        _write_head(path, line.head)


def verify(path: Path) -> int:
    """Check the whole chain and its end; returns the number of lines.

    Raises:
        InputError: the first line that was edited, deleted, inserted or moved, or lines missing at the end.
    """
    return sum(1 for _ in read(path))


def read(path: Path) -> Iterator[Line]:
    """The lines of a ledger, each checked before it is given out, then the ledger's end.

    Raises:
        InputError: as `verify`.
    """
    last = None
    if path.exists():
        with path.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH)
            for number, raw in enumerate(stream, start=1):
                if not raw.endswith(b"\n"):
                    break  # cut short by a crash, and never sent; the next line replaces it
                line = _parse(raw[:-1], path, f"line {number}")
                if line.head_before != (last.head if last else Head()):
                    raise InputError(
                        f"{path}: line {number} does not follow the line before it; a line was removed or moved"
                    )
                last = line
                yield line
            _is_behind(path, last)
    else:
        _is_behind(path, None)


def _last_line(stream: IO[bytes]) -> tuple[bytes, int]:
    """The last whole line, and where it ends; what a crash cut short behind it does not count."""
    start, tail = stream.seek(0, os.SEEK_END), b""
    while start > 0 and tail.count(b"\n") < 2:
        size = min(_BLOCK_BYTES, start)
        start = stream.seek(start - size)
        tail = stream.read(size) + tail
    whole = tail[: tail.rfind(b"\n") + 1]
    return whole[:-1].rpartition(b"\n")[2], start + len(whole)


def _parse(raw: bytes, path: Path, which: str) -> Line:
    try:
        line = Line.model_validate_json(raw)
    except ValidationError:
        raise InputError(f"{path}: {which} is not a ledger line") from None
    said = line.model_dump(exclude_unset=True)  # an older line lacks what versions since have added
    if _hash({key: value for key, value in said.items() if key != "hash"}) != line.hash or _canonical(said) != raw:
        raise InputError(f"{path}: {which} was edited")
    return line


def _is_behind(path: Path, last: Line | None) -> bool:
    """Whether a crash came before the head was brought up to the last line.

    Raises:
        InputError: head and ledger do not belong together.
    """
    head_path = _head_path(path)
    try:
        head = Head.model_validate_json(head_path.read_bytes()) if head_path.exists() else Head()
    except ValidationError:
        raise InputError(f"{head_path}: was edited; it holds the number and hash of the ledger's last line") from None
    if head == (last.head if last else Head()):
        return False
    if last is not None and head == last.head_before:
        return True
    number = last.number if last else 0
    if head.number > number:
        raise InputError(f"{path}: line {number + 1} is missing, and all up to line {head.number}; the end was removed")
    raise InputError(f"{head_path}: ends at line {head.number}, the ledger at line {number}; one of them was replaced")


def _head_path(path: Path) -> Path:
    return path.with_suffix(".head")


def _write_head(path: Path, head: Head) -> None:
    write_text(_head_path(path), head.model_dump_json() + "\n")


def _chain(entry: Entry, before: Head) -> Line:
    body = {
        "number": before.number + 1,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        **entry.model_dump(),
        "previous": before.hash,
    }
    return Line.model_validate({**body, "hash": _hash(body)})


def _canonical(body: dict[str, Any]) -> bytes:
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()


def _hash(body: dict[str, Any]) -> str:
    return hashlib.sha256(_canonical(body)).hexdigest()
