"""What the site's process is doing, in a file beside it: read by `msfl-client start` and `status`."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from msfl_common.config.message_kinds import OPENING
from msfl_common.errors import ConfigError
from msfl_common.system.files import write_text
from msfl_common.system.foreign_text import shown
from msfl_common.system.reading import read_record

FILE = "status.json"
WRITE_EVERY_S = 0.5

State = Literal["connecting", "offline", "waiting", "working", "stopped"]


class NodeStatus(BaseModel):
    """A moment of the site's process; it stays at the site."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    state: State
    since: datetime = Field(description="when this state began, UTC")
    pid: int
    study: str
    server: str = Field(description="host:port of the coordinator")
    reason: str = Field("", description="why it is offline")
    round: int | None = None
    doing: str = Field("", description="checking, preparing, training, validating or refused")
    done: int = 0
    total: int = 0
    note: str = ""
    refused: str = Field("", description="what the last request was refused for; empty if it was not")
    rounds_answered: int = 0
    is_last: bool = Field(False, description="whether the study's last request was answered: it is finished")


class StatusFile:
    """Keeps the file up to date, at most twice a second."""

    def __init__(self, folder: Path, study: str, server: str) -> None:
        self._path = folder / FILE
        self._written = 0.0
        before = read_status(folder)
        is_last = before is not None and before.study == study and before.is_last
        self._status = NodeStatus(
            state="connecting", since=_now(), pid=os.getpid(), study=study, server=server, is_last=is_last
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.say("stopped")

    def say(self, state: State, reason: str = "") -> None:
        """A new state."""
        if state == "waiting" and self._status.state == "working":
            refused = self._status.note if self._status.doing == "refused" else ""
            self._set(
                rounds_answered=self._status.rounds_answered + (self._status.doing == "training"), refused=refused
            )
        since = self._status.since if state == self._status.state else _now()
        self._set(state=state, since=since, reason=reason, doing="", done=0, total=0, note="")
        self._write()

    def on_request(self, kind: str, round_number: str) -> None:
        """A request came in."""
        number = int(round_number) if round_number.isdecimal() and len(round_number) < 10 else None
        is_last = self._status.is_last and kind == f"query.{OPENING}"  # of the metrics that were the last
        self._set(state="working", since=_now(), round=number, reason="", doing=kind, is_last=is_last)
        self._write()

    def on_last(self) -> None:
        """The study's last request was answered."""
        self._set(is_last=True)
        self._write()

    def on_progress(self, _site: str, doing: str, done: int, total: int, note: str) -> None:
        """See `msfl_client.rounds.site_context.OnProgress`."""
        self._set(doing=doing, done=done, total=total, note=shown(note))
        if time.monotonic() - self._written > WRITE_EVERY_S or done == total:
            self._write()

    def _set(self, **changes: object) -> None:
        self._status = self._status.model_copy(update=changes)

    def _write(self) -> None:
        self._written = time.monotonic()
        try:
            write_text(self._path, self._status.model_dump_json(indent=1) + "\n")
        except OSError:  # a full disk must not end the site's process
            return


def read_status(folder: Path) -> NodeStatus | None:
    """The last status written, or None where there is none."""
    try:
        return read_record(NodeStatus, folder / FILE)
    except ConfigError:
        return None


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
