"""The coordinator's Flower app; simulation and SuperLink run this same one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from msfl_server.rounds.evaluation import run_evaluation
from msfl_server.rounds.loop import Listener, run_rounds
from msfl_server.rounds.stage import StageRun


@dataclass(frozen=True)
class RunSettings:
    """What a run is told before it starts."""

    stage_run: StageRun
    listener: Listener
    expected: tuple[str, ...] = ()


def build_app(settings_of: Callable[[Context], RunSettings]) -> ServerApp:
    """The app of the run that `settings_of` finds for a Flower context."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        settings = settings_of(context)
        run, listener, expected = settings.stage_run, settings.listener, settings.expected
        if run.study.evaluate is not None:
            run_evaluation(grid, run, listener, expected)
            return
        run_rounds(grid, run.study, run.first, run.out, listener, expected, run.stage, run.handed, run.signer)

    return app
