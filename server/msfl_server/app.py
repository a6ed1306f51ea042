"""The coordinator's Flower app; simulation and SuperLink run this same one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from msfl_common.config import StudyConfig
from msfl_common.weights import Weights
from msfl_server.federation import Listener, run_rounds


@dataclass(frozen=True)
class RunSettings:
    """What a run is told before it starts."""

    study: StudyConfig
    first: Weights
    out: Path
    listener: Listener
    expected: tuple[str, ...] = ()


def build_app(settings_of: Callable[[Context], RunSettings]) -> ServerApp:
    """The app of the run that `settings_of` finds for a Flower context."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        settings = settings_of(context)
        run_rounds(grid, settings.study, settings.first, settings.out, settings.listener, settings.expected)

    return app
