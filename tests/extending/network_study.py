"""Train a segmentation among simulated sites in this process, predict with its model, and say what came of it.

`python -m tests.extending.network_study STUDY.yaml FOLDER`, with a folder of BIDS folders `site-*` in FOLDER.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

import msfl_common
from msfl_client.prediction.lesions import predict_folder
from msfl_client.rounds.app import build_app
from msfl_common.config.site import Policy, SiteConfig
from msfl_common.config.study import load_study
from msfl_common.models.model_folder import load_model
from msfl_common.models.starting_weights import starting_weights
from msfl_server.research.simulation.grid import InProcessGrid
from msfl_server.results.settings import flat_settings
from msfl_server.rounds.checkpoint import RunState
from msfl_server.rounds.loop import run_rounds


class Quiet:
    """A listener to whom nothing needs to be said."""

    def on_start(self, state: RunState) -> None: ...

    def on_wait(self, number: int, what: str, sites: list[str], left_s: float) -> None: ...

    def on_round(self, state: RunState) -> None: ...


def main(study_file: Path, folder: Path) -> None:
    study = load_study(study_file)
    sites = [
        SiteConfig(name=data.name, data=(data,), state=folder / "states" / data.name, policy=Policy(min_patients=1))
        for data in sorted(folder.glob("site-*"))
    ]
    app = build_app(lambda context: sites[int(context.node_config["partition-id"])], cache_answers=False)
    first = starting_weights(study)
    run_rounds(InProcessGrid(app, len(sites)), study, first, folder / "out", Quiet())
    card, trained = load_model(folder / "out" / "model")
    rows = predict_folder(folder / "out" / "model", sites[0].data[0], folder / "predicted", "cpu")
    found = {
        "package": str(Path(msfl_common.__file__).parent),
        "kind": card.study.network.kind,
        "settings": [setting.name for setting in flat_settings(card.study) if setting.name.startswith("network.")],
        "unmoved": [name for name in first if np.array_equal(first[name], trained[name])],
        "rounds": card.provenance.rounds_completed,
        "predicted": [row.status for row in rows],
    }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
