"""The site's record of every message that left it: JSON lines, each chained to the line before and signed.

A line's `hash` is the SHA-256 of the line without it and the signature, in canonical JSON; `previous` is the hash of
the line before. An edited, inserted, deleted or reordered line breaks the chain at a line that `read` names, and
without the site's key nobody can write another chain. Lines cut off the end would leave a whole one, so `ledger.head`,
written after each line, holds the number and hash of the last one. It may be one line behind, where a crash came
between the two writes; ahead of the ledger it never is. Cutting both back, or writing all anew with the site's key,
contradicts the coordinator's receipts (see `ledger_receipts`).

Lines from before signatures, and those of a site without a key, are not signed: no signed line may come before one.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import FileIO
from pathlib import Path

from pydantic import ValidationError

from msfl_client.egress.ledger_line import Entry, Head, Line, make_line, parse_line
from msfl_client.egress.ledger_receipts import Receipts
from msfl_client.egress.tail import last_line
from msfl_common.errors import Code, InputError, RefusedError
from msfl_common.system.files import private_folder, write_text
from msfl_common.trust.receipts import Owner, Signer

LEDGER_FILE = "ledger.jsonl"


def append(path: Path, entry: Entry, signer: Signer | None = None, keep: Callable[[int], None] | None = None) -> Line:
    """Add a line and force it to disk; the caller sends only after this returns.

    Only the last line is read, so the time does not grow with the ledger.

    Args:
        path: the ledger.
        entry: what the line is to say.
        signer: the site, where it has a key.
        keep: called with the line's number before it is written.

    Raises:
        RefusedError: the end of the ledger was touched, or is not this key's; with the code INTERNAL. The files stay
            as found.
    """
    private_folder(path.parent)
    with path.open("a+b", buffering=0) as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        try:
            last, end = _end_of(path, stream, signer)
            is_behind = _is_behind(path, last)
        except InputError as error:
            raise RefusedError(Code.INTERNAL, str(error)) from None
        if last is not None and is_behind:
            _write_head(path, last.head)  # before the next line: two behind would look like tampering
        # A line that a crash cut short was never followed by a message: writing comes before sending.
        stream.truncate(end)
        line = make_line(entry, last.head if last else Head(), Receipts.of(path).newest_sha256(), signer)
        if keep is not None:
            keep(line.number)
        try:
            _write(stream, line.raw + b"\n")
        except OSError:
            stream.truncate(end)  # what did not fit is no line, and its room may be needed
            raise
        with suppress(OSError):  # the line is there; the head may be one behind, and comes before the next line
            _write_head(path, line.head)
        return line


def newest_releases(path: Path) -> int:
    """Releases with noise that had been written down as spent when the newest answer with noise left; 0 of none."""
    if not path.exists():
        return 0
    whole = path.read_bytes().rpartition(b"\n")[0]  # what a crash cut short was never sent
    told = next((raw for raw in reversed(whole.split(b"\n")) if b'"releases":' in raw), None)
    return int(json.loads(told)["releases"]) if told is not None else 0


def verify(path: Path, owner: Owner | None = None) -> int:
    """Check the whole chain and its end, and with `owner` all signatures and receipts; returns the number of lines.

    Raises:
        InputError: as `read`.
    """
    return sum(1 for _ in read(path, owner))


def read(path: Path, owner: Owner | None = None) -> Iterator[Line]:
    """The lines of a ledger, each checked before it is given out, then the ledger's end.

    With `owner`, the site whose key it is, every signature is checked, and its last line must be signed.

    Raises:
        InputError: the first line that was edited, deleted, inserted or moved, or that the site has not signed; lines
            missing at the end; or a receipt of the coordinator's that the ledger contradicts, or lacks.
    """
    receipts = Receipts.of(path)
    check = receipts.checker(owner)
    last = None
    if path.exists():
        with path.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH)
            for number, raw in enumerate(stream, start=1):
                if not raw.endswith(b"\n"):
                    break  # cut short by a crash, and never sent; the next line replaces it
                line = parse_line(raw[:-1], path, f"line {number}")
                if line.head_before != (last.head if last else Head()):
                    raise InputError(
                        f"{path}: line {number} does not follow the line before it; a line was removed or moved"
                    )
                _check_signature(line, last, path, owner)
                check.line(line)
                last = line
                yield line
            _is_behind(path, last)
    else:
        _is_behind(path, None)
    if owner is not None and last is not None and not last.signature:
        raise InputError(
            f"{path}: no line is signed, though the site has a key: all are from before lines were signed, or it was "
            "replaced; compare its last hash with one noted earlier, then start the site, whose next line signs"
        )
    check.end()


def _write(stream: FileIO, content: bytes) -> None:
    while content:
        content = content[stream.write(content) :]
    os.fsync(stream.fileno())


def _check_signature(line: Line, before: Line | None, path: Path, owner: Owner | None) -> None:
    if not line.signature:
        if before is not None and before.signature:
            raise InputError(f"{path}: line {line.number} is not signed, but follows signed ones")
    elif owner is not None and not line.is_signed_by(owner):
        raise InputError(
            f"{path}: line {line.number} is not signed by the key of {owner.site}: it was forged, or that key is new; "
            "a ledger of an earlier key is kept elsewhere, with its public key"
        )


def _end_of(path: Path, stream: FileIO, signer: Signer | None) -> tuple[Line | None, int]:
    """The last whole line, and where it ends.

    Raises:
        InputError: it was touched, or is signed by another key than `signer`'s.
    """
    raw, end = last_line(stream)
    if not end:
        return None, end
    last = parse_line(raw, path, "the last line")
    if last.signature and (signer is None or not last.is_signed_by(signer.owner)):
        raise InputError(
            f"{path}: the last line is signed by another key than the site's; bring that key back, or move "
            f"{path.stem}.* to where they are kept, with its public key, to begin anew"
        )
    if not last.signature and Receipts.of(path).newest_sha256():
        raise InputError(f"{path}: is not signed, though the coordinator has given receipts for it: it was replaced")
    return last, end


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
        rest = f", and all up to line {head.number}" if head.number > number + 1 else ""
        raise InputError(f"{path}: line {number + 1} is missing{rest}; the end was removed")
    raise InputError(f"{head_path}: ends at line {head.number}, the ledger at line {number}; one of them was replaced")


def _head_path(path: Path) -> Path:
    return path.with_suffix(".head")


def _write_head(path: Path, head: Head) -> None:
    write_text(_head_path(path), head.model_dump_json() + "\n")
