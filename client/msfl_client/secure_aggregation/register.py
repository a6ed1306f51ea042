"""The register of masked sums of a study: what was sent under which masks, and which requests were opened with whom.

Two values under one mask give their difference away, and so do two sums of a request over other members, or of one
value, whichever rounds asked for it. So before anything leaves, what does is written down here, to the disk; where that
cannot be done, nothing leaves.

A state folder that is set back to a backup would forget what left since. So the number and the hash of the register
stand beside the site's key, too, and a register that is not the one that was written last is set back: its secrets are
not used any more, and the site takes part with a new key, in a new roster. Who sets back both files is noticed by the
coordinator's receipts for the ledger alone, which come with its requests.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, TypeAdapter, ValidationError

from msfl_common.config.base import Frozen
from msfl_common.errors import Code, RefusedError
from msfl_common.secure_aggregation.roster import Hex32
from msfl_common.system.files import private_folder, write_bytes

REGISTER_FILE = "register.json"
MARK_SUFFIX = ".masks"  # of the file beside the site's key


class Register(Frozen):
    """The register's file."""

    number: int = Field(0, description="how often it was written")
    previous: str = Field("", description="SHA-256 of the file before")
    sent: dict[Hex32, Hex32] = Field(default_factory=dict, description="digest of a sum's context to the payload's")
    opened: dict[Hex32, Hex32] = Field(default_factory=dict, description="digest of a request to the opening's")
    tells: dict[Hex32, Hex32] = Field(default_factory=dict, description="digest of a sum's context to the value's")
    parts: dict[Hex32, tuple[Hex32, ...]] = Field(
        default_factory=dict, description="digest of a sum's context to those of numbers in the value"
    )
    summed: dict[Hex32, Hex32] = Field(
        default_factory=dict, description="digest of a value, or number, to its sum's sites'"
    )


class Mark(Frozen):
    """What stands beside the site's key."""

    number: int
    sha256: Hex32


_Marks = TypeAdapter(dict[str, Mark])  # by name of the study


@dataclass(frozen=True)
class Registers:
    """Where the register of a study lies.

    Attributes:
        folder: in the state folder.
        study: its name.
        marks: the file beside the site's key; None in a simulation, which has none.
    """

    folder: Path
    study: str
    marks: Path | None

    def read(self) -> Register:
        """The register.

        Raises:
            RefusedError: it is damaged, or not the one that this site wrote last; with the code NO_MASK_KEY.
        """
        raw, mark = self._raw(), self._read_marks().get(self.study)
        try:
            register = Register.model_validate_json(raw) if raw else Register()
        except ValidationError:
            raise RefusedError(Code.NO_MASK_KEY, f"{self._path}: damaged; a new key for masks is needed") from None
        if self.marks is not None and not _follows(register, raw, mark):
            last = mark.number if mark else 0
            detail = (
                f"{self._path}: is not the one that this site wrote last ({register.number} entries, {self.marks} says "
                f"{last}): the state folder was set back or exchanged, and no mask is used twice"
            )
            raise RefusedError(Code.NO_MASK_KEY, detail)
        return register

    def sends(
        self, register: Register, context: str, payload: str, tells: str = "", parts: tuple[str, ...] = ()
    ) -> None:
        """Write down that a value leaves in a sum, before it does; `tells` and `parts` are of what it tells.

        Raises:
            RefusedError: another value has left under these masks.
            OSError: it cannot be written.
        """
        earlier = register.sent.get(context)
        if earlier == payload:
            return
        if earlier is not None:
            raise RefusedError(Code.ANSWERED, f"another value has left for the sum {context}, under the same masks")
        known, numbers = {context: tells} if tells else {}, {context: parts} if parts else {}
        self._write(
            register,
            sent={**register.sent, context: payload},
            tells={**register.tells, **known},
            parts={**register.parts, **numbers},
        )

    def opens(self, register: Register, request: str, opening: str, summed: dict[str, str]) -> None:
        """Write down that a request's sum is opened, before any share of it leaves; the caller has checked it.

        Args:
            register: as it was read.
            request: its digest.
            opening: that of the opening.
            summed: that of this site's value to that of the sum's sites; empty where it has none in it.

        Raises:
            OSError: it cannot be written.
        """
        if register.opened.get(request) != opening:
            opened = {**register.opened, request: opening}
            self._write(register, opened=opened, summed={**register.summed, **summed})

    def renew(self, keep_opened: bool) -> None:
        """Go on with a new key: what was sent under the last one is over, and the mark is that of this register."""
        raw, mark = self._raw(), self._read_marks().get(self.study)
        try:
            found = Register.model_validate_json(raw) if raw else Register()
        except ValidationError:
            found = Register()
        number = max(found.number, mark.number if mark else 0)
        kept: dict[str, dict[str, Any]] = {} if keep_opened else {"opened": {}, "summed": {}}
        self._write(found.model_copy(update={"number": number, **kept}), sent={}, tells={}, parts={})

    def _write(self, register: Register, **changes: Mapping[str, Any]) -> None:
        raw = self._raw()
        previous = hashlib.sha256(raw).hexdigest() if raw else ""
        after = register.model_copy(update={"number": register.number + 1, "previous": previous, **changes})
        content = after.model_dump_json().encode()
        private_folder(self.folder, within=self.folder.parents[1])  # the state folder
        write_bytes(self._path, content, secret=True)
        if self.marks is not None:  # after it: one behind is where a crash came between
            marks = self._read_marks() | {self.study: Mark(number=after.number, sha256=_sha256(content))}
            write_bytes(self.marks, _Marks.dump_json(marks), secret=True)

    def _raw(self) -> bytes:
        try:
            return self._path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return b""

    def _read_marks(self) -> dict[str, Mark]:
        if self.marks is None or not self.marks.exists():
            return {}
        try:
            return _Marks.validate_json(self.marks.read_bytes())
        except ValidationError:
            detail = f"{self.marks}: damaged; restore it from a backup, or remove it: a new key for masks is then made"
            raise RefusedError(Code.NO_MASK_KEY, detail) from None

    @property
    def _path(self) -> Path:
        return self.folder / REGISTER_FILE


def _follows(register: Register, raw: bytes, mark: Mark | None) -> bool:
    """Whether a register is the marked one, or the one that was written after it when a crash came."""
    if mark is None:
        return register.number <= 1 and not register.previous
    if register.number == mark.number:
        return _sha256(raw) == mark.sha256
    return register.number == mark.number + 1 and register.previous == mark.sha256


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
