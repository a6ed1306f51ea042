"""All folds' test patients together, at each site: what no fold can tell by itself where an outcome is rare.

A site with one such patient in a fold withholds every figure that holds one class against another there. All of its
patients are tested once over the folds, and where these are enough for the floor, it has the figure of all of them.
Each score is of the model that was trained without the patient. Models of different folds rank patients on scales that
differ a little, which pulls an AUROC of all towards 0.5, as it does in leave-one-out (Airola et al., Comput Stat Data
Anal 2011). Figures of predicted classes are left out, as each fold has a threshold of its own.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msfl_client.classification.evaluation import CaseScores, measure_site
from msfl_client.classification.feature_trainer import FeatureLearner
from msfl_client.classification.image_trainer import ImageLearner
from msfl_client.rounds.site_context import open_context
from msfl_client.segmentation.upstream_model import handed_model
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import StudyConfig
from msfl_common.errors import MsflError, RefusedError
from msfl_common.messages.records import RoundTask
from msfl_common.messages.validation_metrics import ValidationMetrics
from msfl_common.metrics.classification import threshold_metrics
from msfl_common.metrics.classification_curves import DEFAULT_THRESHOLD
from msfl_common.models.model_folder import load_model
from msfl_common.models.weights import Weights
from msfl_common.system.files import write_bytes
from msfl_server.research.simulation.folder import RunSetup
from msfl_server.rounds.checkpoint import read_state

_FILE = "scores.npz"
_PARTS = ("probabilities", "labels", "patients")


def keep_scores(setup: RunSetup, folder: Path) -> None:
    """Write a fold's score of each test patient into its folder, which stays on this machine.

    Nothing where a site's own figures are under masks, or each site has a model of its own.

    Args:
        setup: of the fold.
        folder: of its run, which is complete.
    """
    study = setup.study
    is_personal = study.strategy is not None and study.strategy.is_personal
    is_of_classes = study.task == "classification"
    if not is_of_classes or study.secure_aggregation.method == "masks" or is_personal:
        return
    weights, number = load_model(folder / "model")[1], read_state(folder).round
    arrays: dict[str, NDArray[Any]] = {}
    for site in setup.sites:
        try:
            scores = _scores_at(site, study, number, weights)
        except MsflError:  # no test patient there
            continue
        patients = [hashlib.sha256(f"{site.name}:{one}".encode()).hexdigest()[:16] for one in scores.patients]
        values = (scores.probabilities_NK, scores.labels_N, np.array(patients, np.str_))
        arrays |= {f"{site.name}/{part}": value for part, value in zip(_PARTS, values, strict=True)}
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    write_bytes(folder / _FILE, stream.getvalue())


def _scores_at(site: SiteConfig, study: StudyConfig, number: int, weights: Weights) -> CaseScores:
    learner = open_context(site, study, lambda *_: None, "final", handed_model(site, study)).learner
    task = RoundTask(study, number, "test")
    if isinstance(learner, ImageLearner):
        return learner.case_scores(weights, task, lambda *_: None)
    assert isinstance(learner, FeatureLearner)
    return learner.case_scores(weights, task)


def measure_together(
    study: StudyConfig, sites: Sequence[SiteConfig], folds: Sequence[Path]
) -> dict[str, ValidationMetrics]:
    """What each site may tell of all folds' test patients together; nothing where a fold has no scores.

    Args:
        study: what was trained; its floor and each site's policy hold.
        sites: all of them.
        folds: the folders of the folds.
    """
    kept = []
    for folder in folds:
        try:
            with np.load(folder / _FILE) as content:
                kept.append(dict(content))
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            return {}
    found: dict[str, ValidationMetrics] = {}
    for site in sites:
        parts = [[one[f"{site.name}/{part}"] for part in _PARTS] for one in kept if f"{site.name}/labels" in one]
        if not parts:
            continue
        probabilities_NK, labels_N, patients_N = (np.concatenate(values) for values in zip(*parts, strict=True))
        try:
            told = measure_site(probabilities_NK, labels_N, patients_N.tolist(), DEFAULT_THRESHOLD, study, site.policy)
        except RefusedError:  # too few patients in all folds, too, or one outcome
            continue
        estimates = {name: one for name, one in told.estimates.items() if name not in threshold_metrics()}
        found[site.name] = ValidationMetrics(estimates, told.num_cases, told.seconds)
    return found
