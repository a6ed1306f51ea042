"""Refusals that left while the ledger could not be written: kept in `ledger.late` until there is room again.

The file is made, at its full size, while there is room: what is written into it needs none. Where even that fails,
they are kept in memory. Before the next message leaves, each becomes a line of the ledger, with the time it left at.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from pydantic import ValidationError

from msfl_client.egress import ledger
from msfl_client.egress.ledger_line import Entry
from msfl_common.errors import Code, RefusedError
from msfl_common.system.files import private_folder, write_bytes
from msfl_common.trust.receipts import Signer

RESERVE_BYTES = 32768
MOST_IN_MEMORY = 1000
_EMPTY = b"\0" * RESERVE_BYTES


@dataclass
class Late:
    """Refusals of one site that have no line yet."""

    ledger: Path
    in_memory: list[Entry] = field(default_factory=list)

    def reserve(self) -> None:
        """Make the file, where it is not there and there is room."""
        if not self._path.exists():
            with suppress(OSError):
                private_folder(self._path.parent)  # it may be the first thing in the state folder
                write_bytes(self._path, _EMPTY, secret=True)

    def add(self, entry: Entry) -> None:
        """Keep a refusal that leaves without a line.

        Raises:
            RefusedError: there is no room left for it anywhere; it must not leave.
        """
        try:
            self._write_in_place(entry.model_dump_json().encode() + b"\n")
        except OSError:
            if len(self.in_memory) >= MOST_IN_MEMORY:
                why = f"{MOST_IN_MEMORY} refusals wait for a line in {self.ledger}"
                raise RefusedError(Code.DISK_FULL, why) from None
            self.in_memory.append(entry)

    def pending(self) -> list[Entry]:
        """Those that have no line yet, in their order."""
        found = []
        for raw in self._content().split(b"\n")[:-1]:
            with suppress(ValidationError):  # one that a crash cut short
                found.append(Entry.model_validate_json(raw))
        return [*found, *self.in_memory]

    def write(self, signer: Signer | None) -> None:
        """Give each its line.

        Raises:
            OSError: there is still no room.
            RefusedError: the ledger was touched.
        """
        if pending := self.pending():
            lines = self.ledger.read_bytes() if self.ledger.exists() else b""
            for entry in pending:
                if f'"late":"{entry.late}"'.encode() not in lines:  # a crash may have come before `_clear`
                    ledger.append(self.ledger, entry, signer)
            self._clear()
        private_folder(self.ledger.parent)
        self.reserve()

    def _clear(self) -> None:
        if self._content():
            with self._path.open("r+b") as stream:
                stream.write(_EMPTY)
                stream.flush()
                os.fsync(stream.fileno())
        self.in_memory.clear()

    def _write_in_place(self, content: bytes) -> None:
        start = self._content().rfind(b"\n") + 1  # over what a crash cut short
        if not self._path.exists() or start + len(content) > RESERVE_BYTES:
            raise OSError
        with self._path.open("r+b") as stream:
            stream.seek(start)
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())

    def _content(self) -> bytes:
        return self._path.read_bytes()[:RESERVE_BYTES].rstrip(b"\0") if self._path.exists() else b""

    @property
    def _path(self) -> Path:
        return self.ledger.with_suffix(".late")


@cache
def late_of(ledger_path: Path) -> Late:
    """The one of a ledger, as long as the process lives: what is in memory has no other place."""
    return Late(ledger_path)
