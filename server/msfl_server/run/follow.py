"""A run in another process, shown to people as it goes: `msfl-server start` does not run the rounds itself."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from msfl_common.config.stages import Stage, stages_of
from msfl_common.config.study import StudyConfig
from msfl_common.errors import InputError
from msfl_server.results.summary import RoundSummary
from msfl_server.rounds.checkpoint import read_state
from msfl_server.rounds.stage import folder_of
from msfl_server.run.display import ONLINE
from msfl_server.run.roster_lines import confirmation_line, roster_lines, unconfirmed
from msfl_server.run.status import RunStatus, read_status


class Display(Protocol):
    """Who shows it; see `msfl_server.run.display.RunDisplay`."""

    def say(self, sentence: str) -> None:
        """A line for people."""

    def on_stage(self, stage: Stage, num_rounds: int) -> None:
        """See `msfl_server.run.run.Display`."""

    def on_wait(self, number: int, what: str, sites: list[str], left_s: float) -> None:
        """See `msfl_server.run.run.Display`."""

    def show(self, record: RoundSummary) -> None:
        """A completed round."""


class FollowedRun:
    """Shows each round once: those that `status.json` says are completed, as their checkpoint has them.

    What was completed before this object was made is not shown again.
    """

    def __init__(self, study: StudyConfig, out: Path, status: Path, display: Display) -> None:
        self._out, self._status, self._display = out, status, display
        self._since = datetime.now(UTC).replace(microsecond=0)  # an earlier status is of an earlier run
        self._shown = {stage: len(self._history(stage)) for stage in stages_of(study)}
        self._stage: Stage | None = None
        self._missing: tuple[str, ...] = ()
        self._untold: set[str] = set()
        self._unconfirmed: tuple[str, ...] = ()
        for stage, num_rounds in self._shown.items():
            if num_rounds:
                what = "" if stage == "final" else f" of {stage}"
                display.say(f"rounds{what} completed before: {num_rounds}")

    def look(self) -> None:
        """Show what is new."""
        status = read_status(self._status)
        if status is None or status.written < self._since:
            return
        if status.stage != self._stage:
            if self._stage is not None:
                self._show_rounds(self._stage)
            self._stage = status.stage
            self._display.on_stage(status.stage, status.num_rounds)
        if status.round > self._shown[status.stage]:
            self._show_rounds(status.stage)
        left_s = (status.deadline - datetime.now(UTC)).total_seconds() if status.deadline else 0.0
        self._display.on_wait(status.round + 1, status.doing, list(status.waits_for), left_s)
        self._say_who_is_missing(status)
        self._say_what_is_untold(status)
        self._say_who_has_not_confirmed(status)

    def _show_rounds(self, stage: Stage) -> None:
        new = self._history(stage)[self._shown[stage] :]
        for record in new:
            self._display.show(record)
        self._shown[stage] += len(new)

    def _history(self, stage: Stage) -> tuple[RoundSummary, ...]:
        try:
            return read_state(folder_of(stage, self._out)).history
        except InputError:  # none yet, or just replaced by a newer one: the next look finds it
            return ()

    def _say_who_is_missing(self, status: RunStatus) -> None:
        """A line when a round cannot begin for want of sites."""
        missing = status.waits_for if status.doing == ONLINE else ()
        if missing and missing != self._missing:
            until = f", until {status.deadline:%H:%M} UTC at the latest" if status.deadline else ""
            self._display.say(f"round {status.round + 1} waits for {', '.join(missing)} to come online{until}")
        self._missing = missing

    def _say_who_has_not_confirmed(self, status: RunStatus) -> None:
        """The roster's digest, when the run begins to wait for people; a line for who is left, when others have."""
        names = unconfirmed(status)
        if names and names != self._unconfirmed:
            for line in roster_lines(self._out) if not {*names} <= {*self._unconfirmed} else ():
                self._display.say(line)
            self._display.say(confirmation_line(names))
        self._unconfirmed = names

    def _say_what_is_untold(self, status: RunStatus) -> None:
        """A line when figures are missing, once the first round has shown it, or when others are."""
        for line in status.untold:
            if line not in self._untold:
                self._display.say(f"round {status.round}: {line[0].lower()}{line[1:]}")
        self._untold |= set(status.untold)
