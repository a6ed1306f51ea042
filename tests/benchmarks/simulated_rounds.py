"""Whole simulated runs without a display and without MLflow, and what their model makes of patients."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msfl_common.config.site import SiteConfig
from msfl_common.config.study import StudyConfig
from msfl_common.models.model_folder import load_model
from msfl_common.models.starting_weights import starting_weights
from msfl_common.models.weights import Weights
from msfl_server.research.simulation.federation import simulate
from msfl_server.rounds.checkpoint import RunState
from msfl_server.rounds.stage import StageRun


class Silence:
    """Nobody is told how a run goes."""

    def on_start(self, state: RunState) -> str | None:
        """See `msfl_server.rounds.loop.Listener`."""

    def on_wait(self, number: int, what: str, sites: list[str], left_s: float) -> None:
        """See `msfl_server.rounds.loop.Listener`."""

    def on_round(self, state: RunState) -> str | None:
        """See `msfl_server.rounds.loop.Listener`."""


def tell_nobody(*_: Any) -> None:
    """What a site does."""


def train(study: StudyConfig, sites: Sequence[SiteConfig], out: Path) -> Weights:
    """Play the study's rounds among these sites, all of whom must answer, and load the model that comes of them."""
    rounds = study.rounds.model_copy(update={"quorum": len(sites)})
    study = study.model_copy(update={"rounds": rounds})
    simulate(StageRun(study, starting_weights(study), out), sites, "inprocess", Silence(), tell_nobody)
    return load_model(out / "model")[1]


def in_one_place(sites: Sequence[SiteConfig], state: Path) -> SiteConfig:
    """A site that holds what all of them hold; its patients are split as they are at their own sites."""
    folders = tuple(folder for site in sites for folder in site.data)
    return sites[0].model_copy(
        update={"name": "together", "data": folders, "same_ids": "different-people", "state": state}
    )
