"""The deep models at reduced size in whole runs among the demo's three hospitals: do they fit in ten minutes?

36 patients, of whom about a third are tested, tell little of how well a model predicts; AUROC is reported with its
interval, and has no target. `deep_comparison` says which model sees more.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from msfl_client.classification.image_trainer import ImageLearner
from msfl_client.classification.outcome_data import read_outcomes
from msfl_common.config.classification import Classification, DeepModel, Outcome
from msfl_common.config.study import Inputs, Rounds, StudyConfig, Training, Validation
from msfl_common.messages.records import RoundTask
from msfl_common.system.devices import pick_devices
from msfl_server.research.simulated_cohort import make_cohort
from msfl_server.research.simulation.folder import sites_of_cohort
from tests.benchmarks.figure import Figure
from tests.benchmarks.simulated_rounds import in_one_place, tell_nobody, train
from tests.deep import KINDS

NUM_ROUNDS, STEPS = 6, 5
MOST_MINUTES = 10.0


def measure() -> list[Figure]:
    """Wall time of each model's run, and its AUROC over the three sites' test patients."""
    with tempfile.TemporaryDirectory() as folder:
        make_cohort(Path(folder) / "cohort", num_sites=3, cases_per_site=12, seed=0)
        return [figure for kind in KINDS for figure in measure_kind(kind, Path(folder) / "cohort", Path(folder) / kind)]


def measure_kind(kind: str, cohort: Path, out: Path) -> list[Figure]:
    """One model."""
    study = _study(kind)
    sites = sites_of_cohort(cohort, out, study)
    start = time.monotonic()
    weights = train(study, sites, out)
    minutes = (time.monotonic() - start) / 60
    everyone = in_one_place(sites, out / "together")
    learner = ImageLearner(read_outcomes(everyone, study, tell_nobody), pick_devices("cpu")[0])
    found = learner.measure(weights, RoundTask(study, NUM_ROUNDS, split="test", threshold=0.5), lambda *_: None)
    auroc = found.estimates["auroc"]
    how = (
        f"3 sites x 12 cases, T1w and FLAIR of 24 x 64 x 64, width 16, {NUM_ROUNDS} rounds of {STEPS} steps of 4, "
        "images checked and cut in the same time; min_patients 1, not the default 5, which so few patients stay below; "
        f"{found.num_cases} test patients, "
        f"95% CI {auroc.ci95_low:.2f} to {auroc.ci95_high:.2f}"
    )
    return [
        Figure(f"{kind}, a federated run", minutes, "min", MOST_MINUTES, "at_most", "", how),
        Figure(f"{kind}, AUROC of its test patients", auroc.mean, "", None, "at_least", "chance 0.5", how),
    ]


def _study(kind: str) -> StudyConfig:
    return StudyConfig(
        name="deep",
        task="classification",
        min_patients=1,
        inputs=Inputs(spacing_mm=2.0),
        training=Training(steps_per_round=STEPS, batch_size=4, learning_rate=2e-3),
        rounds=Rounds(num_rounds=NUM_ROUNDS, quorum=3),
        validation=Validation(every_rounds=NUM_ROUNDS),
        classification=Classification(
            outcome=Outcome(endpoint="edss-worsening"),
            clinical=("age", "edss"),
            model=DeepModel(kind=kind, width=16, slices=24, pixels=64),
        ),
    )
