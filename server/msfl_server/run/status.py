"""What the coordinator's run is doing, in `status.json`: the round, whom it waits for and until when, who is online."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field

from msfl_common.config.stages import Stage, study_at
from msfl_common.config.study import StudyConfig
from msfl_common.errors import ConfigError
from msfl_common.system.files import write_text
from msfl_common.system.reading import read_record
from msfl_server.results.summary import SiteFailure
from msfl_server.results.untold import untold_lines
from msfl_server.results.withheld import withheld_metrics
from msfl_server.rounds.checkpoint import RunState

WRITE_EVERY_S = 1.0

log = logging.getLogger(__name__)

State = Literal["starting", "running", "finished", "stopped"]


class _Online(Protocol):
    @property
    def site(self) -> str: ...

    @property
    def joined_at(self) -> str: ...


class RunStatus(BaseModel):
    """A moment of the run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    state: State
    pid: int
    study: str
    written: datetime = Field(description="when this was written, UTC")
    round: int = Field(0, description="rounds completed")
    num_rounds: int = Field(description="of the stage")
    stage: Stage = Field("final", description="what of the study is run; final where it has one stage")
    doing: str = Field("", description="coming online, facts, training or validation")
    waits_for: tuple[str, ...] = Field((), description="sites that have not answered yet")
    deadline: datetime | None = Field(None, description="when the wait ends, UTC")
    online: dict[str, str] = Field({}, description="site to since when it is online, ISO 8601, UTC")
    metrics: dict[str, float] = Field({}, description="means of the last validation")
    failed: tuple[SiteFailure, ...] = Field((), description="sites left out of the last round")
    untold: tuple[str, ...] = Field((), description="why figures are missing, of the last validation")


class StatusFile:
    """Keeps the file up to date, about once a second while the run waits."""

    def __init__(self, path: Path, study: StudyConfig) -> None:
        self._path = path
        self._online: Callable[[], Mapping[int, _Online]] = dict
        self._written = 0.0
        self._study, self._settings = study, study
        self._status = RunStatus(
            state="starting", pid=os.getpid(), study=study.name, num_rounds=study.rounds.num_rounds, written=_now()
        )

    def __enter__(self) -> Self:
        self._write()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status.state != "finished":
            self.say("stopped")

    def watch(self, online: Callable[[], Mapping[int, _Online]]) -> None:
        """Where to ask who is online."""
        self._online = online

    def say(self, state: State) -> None:
        """A new state."""
        self._set(state=state, doing="", waits_for=(), deadline=None)
        self._write()

    def finish(self, num_rounds: int) -> None:
        """The run is finished, now or long ago, with so many rounds."""
        self._set(round=num_rounds)
        self.say("finished")

    def on_stage(self, stage: Stage, num_rounds: int) -> None:
        """What of the study is run from here on."""
        self._settings = study_at(self._study, stage)
        self._set(stage=stage, round=0, num_rounds=num_rounds, metrics={}, failed=(), untold=())
        self._write()

    def on_wait(self, number: int, what: str, sites: list[str], left_s: float) -> None:
        """The round waits for these sites."""
        changed = tuple(sites) != self._status.waits_for or what != self._status.doing
        if not changed and time.monotonic() - self._written < WRITE_EVERY_S:
            return
        online = {node.site: node.joined_at for node in self._online().values()}
        deadline = _now() + timedelta(seconds=left_s)
        self._set(
            state="running",
            round=number - 1,
            doing=what,
            waits_for=tuple(sites),
            deadline=deadline,
            online=dict(sorted(online.items())),
        )
        self._write()

    def on_round(self, state: RunState) -> None:
        """What is completed so far; a line in the log."""
        last = state.history[-1] if state.history else None
        metrics = next((record.metrics for record in reversed(state.history) if record.metrics), {})
        told, task = state.told(self._settings), self._settings.task
        untold = untold_lines(task, state.history, withheld_metrics(task, told), len(state.sites))
        failed = last.sites_failed if last else ()
        self._set(round=state.round, metrics=metrics, failed=failed, untold=untold)
        self._write()
        if last is not None:
            out = "".join(f"; {failure.site}: {failure.code}" for failure in last.sites_failed)
            out += "".join(f"; {site}: its update stands out ({why})" for site, why in last.odd.items())
            log.info("round %d in %.1f s with %s%s", last.round, last.seconds, ", ".join(last.sites_ok), out)
            if last.set_back_to:
                log.warning("round %d: the model came apart; set back to round %d", last.round, last.set_back_to)

    def _set(self, **changes: object) -> None:
        self._status = self._status.model_copy(update=changes)

    def _write(self) -> None:
        self._written = time.monotonic()
        self._set(written=_now())
        try:
            write_text(self._path, self._status.model_dump_json(indent=1) + "\n")
        except OSError:  # a full disk must not end the run
            return


def read_status(path: Path) -> RunStatus | None:
    """The last status written, or None where there is none."""
    try:
        return read_record(RunStatus, path)
    except ConfigError:
        return None


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
