"""The deep models side by side, federated, at reduced size: who sees from images alone that a brain has many lesions.

Lesion load is what images of the built-in cohort say of the year to come, and it is known without chance. Trained at
the demo's three hospitals, measured at two others, whose scanners no model and no segmentation network has seen.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from msfl_client.classification.deep_loop import predict, train_round
from msfl_client.classification.visit_sequences import VisitSequence
from msfl_client.classification.visit_volumes import cached_volume
from msfl_client.data.bids import find_cases
from msfl_common.config.classification import Classification, DeepModel, Outcome
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import Rounds, StudyConfig, Training, load_study
from msfl_common.models.deep_models import VisitClassifier, build_classifier, deep_settings
from msfl_common.models.deep_models.lesion_encoder import load_segmentation
from msfl_common.models.model_folder import load_model
from msfl_common.models.network import get_weights, set_weights
from msfl_server.research.simulated_cohort import make_cohort
from msfl_server.research.simulation.folder import RunSetup, sites_of_cohort
from msfl_server.research.simulation.run import run_simulated
from tests.benchmarks.figure import Figure
from tests.deep import KINDS

STUDY = Path(__file__).parents[3] / "site_configs" / "demo" / "study.yaml"
CPU = torch.device("cpu")
NUM_ROUNDS, STEPS_PER_ROUND, LEARNING_RATE = 10, 7, 2e-3
MANY_LESIONS_ML = 12.0  # about the training cases' median
MOST_MINUTES = 10.0


def measure() -> list[Figure]:
    """AUROC and time of each model, after a segmentation study of the same three hospitals."""
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        make_cohort(base / "cohort", num_sites=3, cases_per_site=12, seed=0)
        make_cohort(base / "others", num_sites=2, cases_per_site=8, seed=1)
        study = load_study(STUDY)
        sites = sites_of_cohort(base / "cohort", base / "run", study)
        run_simulated(RunSetup(study=study, sites=sites), base / "run", "inprocess", None)
        return compare(base / "cohort", base / "others", base / "run" / "model", base / "cache")


def compare(cohort: Path, others: Path, segmentation: Path, cache: Path) -> list[Figure]:
    """Train at the hospitals of one cohort, measure at those of another."""
    found = {kind: _train_federated(kind, cohort, others, segmentation, cache) for kind in KINDS}
    size = (
        f"lesions above {MANY_LESIONS_ML:g} ml, from T1w and FLAIR of 24 x 64 x 64, width 16; {NUM_ROUNDS} rounds of "
        f"3 sites x {STEPS_PER_ROUND} steps of 4, learning rate {LEARNING_RATE:g}; AUROC at two unseen sites"
    )
    best = max(found[kind][0] for kind in KINDS[:-1])
    ours = found[KINDS[-1]][0] - best
    return [
        *(Figure(f"{kind}, AUROC", auroc, "", None, "at_least", "", size) for kind, (auroc, _) in found.items()),
        Figure("lesion-encoder, AUROC gained", ours, "", 0.0, "at_least", "best of the paper's three", size),
        *(
            Figure(f"{kind}, training", minutes, "CPU min", MOST_MINUTES, "at_most", "", "all sites in one process")
            for kind, (_, minutes) in found.items()
        ),
    ]


def _train_federated(kind: str, cohort: Path, others: Path, segmentation: Path, cache: Path) -> tuple[float, float]:
    """AUROC at the other hospitals, and CPU minutes of the rounds."""
    card, weights = load_model(segmentation)
    study = StudyConfig(
        name="comparison",
        task="classification",
        inputs=card.study.inputs,
        network=card.study.network,
        training=Training(steps_per_round=STEPS_PER_ROUND, batch_size=4, learning_rate=LEARNING_RATE),
        rounds=Rounds(num_rounds=NUM_ROUNDS, quorum=3),
        classification=Classification(
            outcome=Outcome(endpoint="activity"),
            clinical=(),
            model=DeepModel(kind=kind, width=16, slices=24, pixels=64, positive_weight=1.0),
        ),
    )
    sites = [_sequences(folder, study, cache) for folder in sorted(cohort.glob("site-*"))]
    unseen = [sequence for folder in sorted(others.glob("site-*")) for sequence in _sequences(folder, study, cache)]
    network = build_classifier(study)
    if kind == "lesion-encoder":
        load_segmentation(network, weights)
    start = time.process_time()
    for round_number in range(1, NUM_ROUNDS + 1):
        _play_round(network, sites, study, round_number)
    minutes = (time.process_time() - start) / 60
    scores = predict(network, unseen, study, CPU)[:, 1]
    return float(roc_auc_score([sequence.label for sequence in unseen], scores)), minutes


def _play_round(
    network: VisitClassifier, sites: list[list[VisitSequence]], study: StudyConfig, round_number: int
) -> None:
    """Every site trains from the shared weights; their mean by number of cases is shared next."""
    shared = get_weights(network)
    total = {name: np.zeros_like(value) for name, value in shared.items()}
    for sequences in sites:
        set_weights(network, shared)
        train_round(network, sequences, study, round_number, CPU, lambda *_: None)
        part = np.float32(len(sequences) / sum(len(others) for others in sites))
        for name, value in get_weights(network).items():
            total[name] += part * value
    set_weights(network, total)


def _sequences(folder: Path, study: StudyConfig, cache: Path) -> list[VisitSequence]:
    """Every context of a hospital as a sequence of one visit."""
    _, model = deep_settings(study)
    cases, _ = find_cases(SiteConfig(name="site", data=(folder,), state=cache), study.inputs.contrasts)
    sequences = []
    for case in cases:
        assert case.mask is not None
        mask = nib.load(case.mask)
        ml = float((np.asarray(mask.dataobj) > 0).sum() * np.prod(mask.header.get_zooms()[:3])) / 1000
        volume = cached_volume(case, study.inputs, model, cache)
        label = int(ml > MANY_LESIONS_ML)
        sequences.append(VisitSequence((volume,), np.zeros((1, 0), np.float32), np.ones(1, bool), label, case.key))
    return sequences
