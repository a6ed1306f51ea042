"""A study of a kind of feature model among three sites, by the real app, gateway and rounds, against pooled cases.

Run as a program, with the folder to work in: prints what it found as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

import msfl_common
from msfl_client.classification.trainer import read_outcomes
from msfl_client.clinical.inputs import dataset_of
from msfl_client.disclosure.small_groups import in_large_groups
from msfl_client.rounds.app import build_app
from msfl_common.config.base import validate
from msfl_common.config.site import Policy
from msfl_common.config.study import StudyConfig
from msfl_common.feature_models import SOLVABLE, explain, predict_proba
from msfl_common.models.model_folder import load_model
from msfl_common.models.starting_weights import starting_weights
from msfl_server.research.simulated_cohort import make_records
from msfl_server.research.simulation.folder import sites_of_cohort
from msfl_server.research.simulation.grid import InProcessGrid
from msfl_server.rounds.checkpoint import RunState
from msfl_server.rounds.loop import run_rounds

STUDY = {
    "name": "centroids",
    "task": "classification",
    "min_patients": 5,
    "classification": {
        "outcome": {"endpoint": "activity"},
        "features": ["bpf", "log_lesion_volume"],
        "clinical": ["age", "edss"],
        "model": {"kind": "shrunken-centroids", "shrinkage": 0.05},
    },
    "rounds": {"num_rounds": 10, "quorum": 3},
}


class Nobody:
    """A listener that keeps the last state alone."""

    last: RunState

    def on_start(self, state: RunState) -> None: ...
    def on_wait(self, number: int, what: str, sites: list[str], left_s: float) -> None: ...
    def on_round(self, state: RunState) -> None:
        self.last = state


def main(folder: Path) -> None:
    make_records(folder / "patients", num_sites=3, cases_per_site=80)
    study = validate(StudyConfig, STUDY, "study")
    settings = study.classification
    assert settings is not None
    strict = Policy(tasks=("classification",), min_patients=5)  # `refuse_models` as every site has it
    sites = [
        site.model_copy(update={"policy": strict})
        for site in sites_of_cohort(folder / "patients", folder / "out", study)
    ]
    app, listener = build_app(lambda context: sites[int(context.node_config["partition-id"])]), Nobody()
    run_rounds(InProcessGrid(app, len(sites)), study, starting_weights(study), folder / "out", listener)
    _, state = load_model(folder / "out" / "model")

    parts = []
    for site in sites:
        data = read_outcomes(site, study, lambda *_: None)
        parts.append(in_large_groups(settings, dataset_of(data.splits.training, settings, data.features), 5))
    rows_NP, labels_N = (
        np.concatenate([one.features_NP for one in parts]),
        np.concatenate([one.labels_N for one in parts]),
    )
    ours_NK = predict_proba(settings, state, rows_NP)
    ledger = [json.loads(line) for line in (folder / "out/sites/site-a/ledger.jsonl").read_text().splitlines()]
    found = {
        "installed": str(Path(msfl_common.__file__).parent),
        "kind": settings.model.kind,
        "is_refused": settings.model.kind in SOLVABLE,
        "rounds": listener.last.round,
        "auroc": roc_auc_score(labels_N, ours_NK[:, 1]),
        "difference": np.abs(ours_NK - pooled(rows_NP, labels_N, 0.05)).max(),
        "spread": np.ptp(ours_NK[:, 1]),
        "explained": explain(settings, state, rows_NP[0]),
        "updates": sum(line["kind"] == "model_update" for line in ledger),
    }
    json.dump(found, sys.stdout, default=float)


def pooled(rows_NP: np.ndarray, labels_N: np.ndarray, shrinkage: float) -> np.ndarray:
    """The same model of rows in one place, computed the short way."""
    scaled_NP = (rows_NP - rows_NP.mean(axis=0)) / rows_NP.std(axis=0)
    means_KP = np.stack([scaled_NP[labels_N == number].mean(axis=0) for number in (0, 1)])
    means_KP = np.sign(means_KP) * np.maximum(np.abs(means_KP) - shrinkage, 0)
    distances_NK = np.linalg.norm(scaled_NP[:, None] - means_KP, axis=2)
    fall_off_K = np.array([distances_NK[labels_N == number, number].mean() for number in (0, 1)]) / scaled_NP.shape[1]
    density_NK = np.bincount(labels_N) * np.exp(-distances_NK / fall_off_K) / fall_off_K ** scaled_NP.shape[1]
    return density_NK / density_NK.sum(axis=1, keepdims=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
