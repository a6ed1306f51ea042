"""What came of each site: `received.jsonl` in the folder of a run, lines that are only ever added.

A line is an answer that arrived, whether it counted or was refused: the site, the kind of message and its size, and
nothing of what was in it. Sizes are those of the sites' ledgers: names and values, without what Flower wraps them in.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ConfigDict, Field, ValidationError

from msfl_common.config.base import Frozen, Name
from msfl_common.config.message_kinds import KINDS

RECEIVED_FILE = "received.jsonl"
REFUSAL = "refusal"  # a code from a fixed list, in place of an answer

log = logging.getLogger(__name__)


class Arrived(Frozen):
    """A line of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    site: Name
    kind: str
    num_bytes: int = Field(ge=0)


@dataclass(frozen=True)
class Tally:
    """How much of one kind came of a site."""

    messages: int = 0
    num_bytes: int = 0


class Received:
    """Adds to the file of a run."""

    def __init__(self, out: Path) -> None:
        self._file = out / RECEIVED_FILE

    def note(self, site: str, kind: str, num_bytes: int) -> None:
        """Add an answer; that a disk is full is said elsewhere, and ends no round."""
        try:
            line = Arrived(site=site, kind=kind, num_bytes=num_bytes).model_dump_json()
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("a", encoding="utf-8") as stream:
                stream.write(line + "\n")
        except (OSError, ValidationError) as error:
            log.warning("what came of a site is not counted: %s", type(error).__name__)


def tally(out: Path) -> dict[str, dict[str, Tally]]:
    """Site to kind of message to how much came; empty in runs of earlier versions, which did not count."""
    counted: dict[str, dict[str, Tally]] = {}
    for one in _lines(out / RECEIVED_FILE):
        kinds = counted.setdefault(one.site, {})
        before = kinds.get(one.kind, Tally())
        kinds[one.kind] = Tally(before.messages + 1, before.num_bytes + one.num_bytes)
    return {site: counted[site] for site in sorted(counted)}


def title_of(kind: str) -> str:
    """A kind of message in plain words."""
    return KINDS[kind].title if kind in KINDS else "refusals (a code)"


def totals(kinds: Mapping[str, Tally]) -> Tally:
    """All kinds together."""
    return Tally(sum(one.messages for one in kinds.values()), sum(one.num_bytes for one in kinds.values()))


def _lines(file: Path) -> Iterator[Arrived]:
    for raw in file.read_bytes().splitlines() if file.is_file() else ():
        try:
            yield Arrived.model_validate_json(raw)
        except ValidationError:  # a line that a crash cut short
            continue
