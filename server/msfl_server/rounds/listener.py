"""Who follows a run: the terminal, MLflow, a status file."""

from __future__ import annotations

from typing import Protocol

from msfl_server.rounds.checkpoint import RunState


class Listener(Protocol):
    """Who is told how a run goes: the terminal, MLflow."""

    def on_start(self, state: RunState) -> str | None:
        """The run starts or resumes after `state.round` rounds; may return an MLflow run id to keep from here on."""

    def on_wait(self, number: int, what: str, sites: list[str], left_s: float) -> None:
        """Round `number` waits for these sites, for at most `left_s` seconds more."""

    def on_round(self, state: RunState) -> str | None:
        """A round is complete and on disk; may return an MLflow run id that was not known before."""
