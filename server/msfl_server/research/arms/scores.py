"""What a finished run's model is worth at each site, patient by patient: it stays in the run's private folder.

It is measured on the study's test patients. Where a segmentation keeps none, those that validate it serve: nothing is
chosen by them here, as the model is that of the last round, and its threshold is fixed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msfl_client.classification.feature_trainer import FeatureLearner
from msfl_client.classification.image_trainer import ImageLearner
from msfl_client.personal.arms import tuned
from msfl_client.personal.record import TUNED
from msfl_client.rounds.own_model import train_alone
from msfl_client.rounds.site_context import build_context, open_context
from msfl_client.segmentation.trainer import SegmentationLearner
from msfl_client.segmentation.upstream_model import handed_model
from msfl_client.site.folder import OWN_MODELS
from msfl_common.config.site import SiteConfig
from msfl_common.config.stages import lesion_stages
from msfl_common.config.study import StudyConfig
from msfl_common.errors import InputError, MsflError, RunError
from msfl_common.messages.records import RoundTask
from msfl_common.metrics.classification import CLASSIFICATION_METRICS
from msfl_common.metrics.registry import ALL_METRICS
from msfl_common.metrics.scored import Scores
from msfl_common.models.starting_weights import starting_weights
from msfl_common.models.weights import Weights
from msfl_common.strategies.finetune import FineTune
from msfl_common.system.files import write_text
from msfl_common.system.reading import parse_json, read_text
from msfl_server.research.arms.plan import Run, site_in
from msfl_server.rounds.checkpoint import load_checkpoint
from msfl_server.rounds.stage import own_start

SCORES_FILE, FAILED_FILE = "scores.json", "failed.json"
_THRESHOLD = 0.5  # no figure here rests on it

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class SiteScores:
    """A model's figures for each case of a site.

    Attributes:
        patients: whose each case is, as digests.
        metrics: of a segmentation: each metric of each case; NaN where undefined.
        labels: of a classification: the outcomes.
        probabilities: of a classification: the model's, N x K.
    """

    patients: tuple[str, ...]
    metrics: Mapping[str, Floats] = field(default_factory=dict)
    labels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    probabilities: Floats = field(default_factory=lambda: np.zeros((0, 2)))

    def values(self, name: str, weights_RN: Floats) -> Floats:
        """A metric under each of R weightings of the cases; NaN where undefined."""
        if name in CLASSIFICATION_METRICS:
            scores = Scores(self.probabilities, self.labels, _THRESHOLD, weights_RN)
            return CLASSIFICATION_METRICS[name].measure(scores)
        value_N = self.metrics[name]
        known_N = np.isfinite(value_N)
        total_R = weights_RN[:, known_N].sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(weights_RN[:, known_N] @ value_N[known_N] / total_R)

    def document(self) -> dict[str, Any]:
        """As it is written down."""
        if self.metrics:
            metrics = {name: [None if x != x else x for x in value.tolist()] for name, value in self.metrics.items()}
            return {"patients": self.patients, "metrics": metrics}
        return {
            "patients": self.patients,
            "labels": self.labels.tolist(),
            "probabilities": self.probabilities.tolist(),
        }


@dataclass(frozen=True)
class RunScores:
    """A finished run: rounds of its training, each site's figures, and why some have none."""

    rounds: int
    sites: Mapping[str, SiteScores]
    unmeasured: Mapping[str, str] = field(default_factory=dict)


def measure_run(run: Run, folder: Path, sites: Sequence[SiteConfig]) -> RunScores:
    """Measure a run's last model at each of some sites, members of the run or not.

    Raises:
        RunError: no round of it is complete.
    """
    study = run.study
    first = starting_weights(study, own_start(study, folder))
    checkpoint = load_checkpoint(folder, study, expected=first)
    if checkpoint is None:
        raise RunError(f"{run.name}: no round is complete")
    found: dict[str, SiteScores] = {}
    why: dict[str, str] = {}
    open_context.cache_clear()
    for site in sites:
        here = site_in(folder, site)
        try:
            _hand_lesion_models(here, study, folder)
            found[site.name] = _scores_at(here, study, checkpoint.state.round, checkpoint.weights, site in run.members)
        except MsflError as error:
            why[site.name] = str(error)
        open_context.cache_clear()
    return RunScores(checkpoint.state.round, found, why)


def _hand_lesion_models(site: SiteConfig, study: StudyConfig, folder: Path) -> None:
    """Models of lesions that a site which took no part in a run has not been handed."""
    for stage in lesion_stages(study):
        if not (site.state / stage).exists():
            shutil.copytree(folder / stage / "model", site.state / stage)


def _scores_at(site: SiteConfig, study: StudyConfig, number: int, weights: Weights, is_member: bool) -> SiteScores:
    context = open_context(site, study, lambda *_: None, "final", handed_model(site, study))
    learner = context.learner
    task = RoundTask(study, number, "test")
    if isinstance(learner, SegmentationLearner):
        own = _own_model(site, study, learner, number, weights) if is_member else None
        whole = learner.strategy.whole(weights, number) if own is None else own
        rows = learner.case_metrics(whole, learner.final, lambda *_: None)
        names = rows[0] if rows else {}
        metrics = {name: np.array([row[name] for row in rows], np.float64) for name in names}
        return SiteScores(_digests(site, learner.final.patients), metrics)
    if isinstance(learner, FeatureLearner):
        scores = learner.case_scores(weights, task)
    elif isinstance(learner, ImageLearner):
        scores = learner.case_scores(weights, task, lambda *_: None)
    else:
        raise InputError(f"{study.name}: a model of a kind whose patients cannot be measured one by one")
    patients = _digests(site, scores.patients)
    return SiteScores(patients, {}, scores.labels_N, np.asarray(scores.probabilities_NK, np.float64))


def _own_model(
    site: SiteConfig, study: StudyConfig, learner: SegmentationLearner, number: int, shared: Weights
) -> Weights | None:
    """The model that a site has for itself beside the shared one, of strategies that leave it one."""
    if not isinstance(study.strategy, FineTune):
        return learner.strategy.personal(number)
    tuning, num_rounds = tuned(study)
    context = build_context(site, tuning, lambda *_: None, "final", None)
    whole = learner.strategy.whole(shared, number)
    return train_alone(context, whole, num_rounds, site.state / OWN_MODELS / study.name, TUNED)


def _digests(site: SiteConfig, patients: Sequence[str]) -> tuple[str, ...]:
    return tuple(hashlib.sha256(f"{site.name}:{patient}".encode()).hexdigest()[:16] for patient in patients)


def write_scores(folder: Path, scores: RunScores) -> None:
    """Write `scores.json`, with which a run is finished."""
    content = {
        "rounds": scores.rounds,
        "sites": {name: one.document() for name, one in scores.sites.items()},
        "unmeasured": dict(scores.unmeasured),
    }
    write_text(folder / SCORES_FILE, json.dumps(content) + "\n")


def read_scores(folder: Path) -> RunScores:
    """What `write_scores` wrote.

    Raises:
        InputError: it is not there or damaged.
    """
    path = folder / SCORES_FILE
    try:
        content: Any = parse_json(read_text(path), str(path))
        sites = {name: _read_site(one) for name, one in content["sites"].items()}
        return RunScores(int(content["rounds"]), sites, dict(content["unmeasured"]))
    except (OSError, KeyError, TypeError, ValueError, AttributeError):
        raise InputError(f"{path}: damaged; delete it, and give the same command again") from None


def _read_site(content: Mapping[str, Any]) -> SiteScores:
    patients = tuple(content["patients"])
    if "metrics" in content:
        metrics = {
            name: np.array([np.nan if one is None else one for one in value], np.float64)
            for name, value in content["metrics"].items()
            if name in ALL_METRICS
        }
        return SiteScores(patients, metrics)
    labels, probabilities = np.array(content["labels"], np.int64), np.array(content["probabilities"], np.float64)
    return SiteScores(patients, {}, labels, probabilities)
