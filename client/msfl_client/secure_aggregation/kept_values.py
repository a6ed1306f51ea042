"""The value that a request was answered with, before its masks: the same request gives the same bytes again.

Seconds that a training took, say, would be others the second time, and two values under one mask give their difference
away. The newest of each purpose is kept, until the study has ended.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, ValidationError

from msfl_common.config.base import Frozen
from msfl_common.config.message_kinds import KindName
from msfl_common.errors import UpdateError
from msfl_common.secure_aggregation.ring import SUMS, UPDATES, Words
from msfl_common.secure_aggregation.roster import Hex32
from msfl_common.system.files import private_folder, write_bytes

FOLDER = "values"
_RINGS = {ring.bits: ring for ring in (UPDATES, SUMS)}


class Facts(Frozen):
    """What is known of a value."""

    request: Hex32 = Field(description="digest of the request that it answers")
    kind: KindName = Field(description="under which kind of masks it leaves")
    bits: int = Field(description="of a number of its ring")
    length: int = Field(ge=0, description="how many numbers it has")
    num_sites: int = Field(description="of how many sites at most it was made to be added up with")
    num_cases: int
    num_patients: int = Field(description="fewest patients behind any figure in it")
    cases: str = Field("", description="digest of the cases that it is of; empty where they are held to nothing")
    tells: str = Field("", description="digest of what it tells of patients: of all but the seconds it took")
    parts: tuple[Hex32, ...] = Field((), description="of numbers that sums of other studies may have in common with it")


@dataclass(frozen=True)
class KeptValue:
    """A value as a vector of its ring, of shape (limbs, length)."""

    facts: Facts
    words: Words


class _Head(Facts):
    sha256: Hex32 = Field(description="of the numbers that follow")


def keep_value(folder: Path, purpose: str, value: KeptValue) -> None:
    """Keep a value, in place of the last of its purpose.

    Raises:
        OSError: it cannot be kept, so it must not leave.
    """
    packed = _RINGS[value.facts.bits].pack(value.words)
    head = _Head(**value.facts.model_dump(), sha256=hashlib.sha256(packed).hexdigest())
    private_folder(folder / FOLDER, within=folder.parents[1])  # the state folder
    write_bytes(folder / FOLDER / purpose, head.model_dump_json().encode() + b"\n" + packed, secret=True)


def kept_value(folder: Path, purpose: str, request: str) -> KeptValue | None:
    """What this very request was answered with; None if it was not the last of its purpose, or cannot be read."""
    with suppress(OSError, ValidationError, UpdateError, KeyError):
        line, _, packed = (folder / FOLDER / purpose).read_bytes().partition(b"\n")
        head = _Head.model_validate_json(line)
        if head.request == request and hashlib.sha256(packed).hexdigest() == head.sha256:
            facts = Facts(**head.model_dump(exclude={"sha256"}))
            return KeptValue(facts, _RINGS[head.bits].unpack(packed, head.length))
    return None


def delete_values(folder: Path) -> None:
    """Delete them all."""
    for path in (folder / FOLDER).glob("*"):
        path.unlink()
