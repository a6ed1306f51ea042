"""What of a site's classification may leave, and what is withheld."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from msfl_client.classification.evaluation import measure_site
from msfl_client.egress.gateway import Gateway, release
from msfl_client.egress.ledger import read, verify
from msfl_common.config.classification import Classification, Outcome
from msfl_common.config.site import Policy
from msfl_common.config.study import StudyConfig
from msfl_common.errors import Code, RefusedError
from msfl_common.feature_models.lda import Lda
from msfl_common.messages.records import unpack_metrics
from msfl_common.metrics.classification import CLASSIFICATION_METRICS, measure, threshold_metrics
from msfl_common.metrics.registry import TASK_METRICS

STUDY = StudyConfig(
    name="pilot",
    task="classification",
    classification=Classification(outcome=Outcome(endpoint="activity"), model=Lda(kind="lda")),
)
NAMES = frozenset(CLASSIFICATION_METRICS)


def site_of(num_cases: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    labels = (np.arange(num_cases) % 3 == 0).astype(np.int64)
    score = 1 / (1 + np.exp(-(rng.normal(size=num_cases) + labels - 0.5)))
    return np.stack([1 - score, score], axis=1), labels, [f"p{number}" for number in range(num_cases)]


def test_a_site_measures_and_the_ledger_says_what_left(tmp_path: Path) -> None:
    metrics = measure_site(*site_of(40), 0.5, STUDY, Policy())
    assert set(metrics.estimates) == NAMES
    assert metrics.num_cases == metrics.confusion.sum() == metrics.score_bins[0, :, 1].sum() == 40
    gateway = Gateway(Policy(), tmp_path / "ledger.jsonl")
    content = release(gateway, metrics, STUDY, 3, metrics.min_patients)
    (line,) = read(gateway.ledger)
    assert verify(gateway.ledger) == 1
    assert (line.kind, line.num_cases, line.min_patients) == ("validation_metrics", 40, 14)
    assert line.arrays == {"cells": [1, 10, 3], "confusion": [2, 2]}
    received = unpack_metrics(content, NAMES, num_classes=2, min_patients=5)
    assert received.estimates["auroc"] == metrics.estimates["auroc"]


def test_the_same_study_gives_the_same_figures() -> None:
    first, second = (measure_site(*site_of(40), 0.5, STUDY, Policy()) for _ in range(2))
    assert first.estimates == second.estimates


def test_the_larger_floor_counts() -> None:
    found = measure_site(*site_of(40), 0.5, STUDY, Policy(min_patients=12))
    groups = found.score_bins[0][found.score_bins[0, :, 1] > 0]
    assert len(groups) == 3
    assert groups[:, 1].min() >= 12


@pytest.mark.parametrize("num_cases", [0, 4])
def test_too_few_patients_report_nothing(num_cases: int) -> None:
    with pytest.raises(RefusedError) as refused:
        measure_site(*site_of(num_cases), 0.5, STUDY, Policy())
    assert refused.value.code is Code.TOO_FEW_PATIENTS


def test_visits_of_few_patients_are_too_few() -> None:
    probabilities, labels, _ = site_of(40)
    with pytest.raises(RefusedError) as refused:
        measure_site(probabilities, labels, ["a", "b", "c", "d"] * 10, 0.5, STUDY, Policy())
    assert refused.value.code is Code.TOO_FEW_PATIENTS


@pytest.mark.parametrize("label", [0, 1])
def test_a_site_of_one_outcome_reports_nothing(label: int) -> None:
    probabilities, labels, patients = site_of(40)
    with pytest.raises(RefusedError, match="one outcome") as refused:
        measure_site(probabilities, np.full_like(labels, label), patients, 0.5, STUDY, Policy())
    assert refused.value.code is Code.TOO_FEW_PATIENTS


def test_few_predicted_patients_are_not_told_of() -> None:
    probabilities, labels, patients = site_of(40)
    threshold = np.sort(probabilities[:, 1])[-3]  # three are called positive
    metrics = measure_site(probabilities, labels, patients, float(threshold), STUDY, Policy())
    assert set(metrics.estimates) == NAMES - set(threshold_metrics())
    assert not metrics.confusion.any()
    assert metrics.score_bins.any()


def test_nobody_predicted_leaves_what_is_defined() -> None:
    metrics = measure_site(*site_of(40), 1.0, STUDY, Policy())
    assert set(metrics.estimates) == NAMES - {"precision"}
    assert metrics.estimates["sensitivity"].mean == 0
    assert metrics.confusion[:, 1].sum() == 0


def test_of_three_classes_each_has_cells() -> None:
    rng = np.random.default_rng(1)
    probabilities, labels = rng.dirichlet((1, 1, 1), 60), np.arange(60) % 3
    metrics = measure_site(probabilities, labels, [f"p{number}" for number in range(60)], 0.5, STUDY, Policy())
    assert metrics.score_bins.shape == (3, 10, 3)
    assert metrics.confusion.sum() == 60


def test_groups_of_patients_are_told_where_both_classes_are_large_enough(tmp_path: Path) -> None:
    probabilities_NK, labels_N, patients = site_of(60)
    by_sex = {"sex": (np.arange(60) // 3 % 2).astype(np.int64)}
    told = measure_site(probabilities_NK, labels_N, patients, 0.5, STUDY, Policy(), by_sex)
    of_women = by_sex["sex"] == 0
    expected = measure(
        probabilities_NK[of_women],
        labels_N[of_women],
        [name for name, is_in in zip(patients, of_women, strict=True) if is_in],
        0.5,
    )["auroc"]
    assert told.estimates["auroc_women"] == expected
    assert set(told.estimates) - NAMES == {"auroc_women", "auroc_men"}
    assert told.min_patients == 10
    content = release(Gateway(Policy(), tmp_path / "ledger.jsonl"), told, STUDY, 3, told.min_patients)
    received = unpack_metrics(content, frozenset(TASK_METRICS["classification"]), num_classes=2, min_patients=5)
    assert received.estimates["auroc_women"] == expected
    few = measure_site(probabilities_NK, labels_N, patients, 0.5, STUDY, Policy(min_patients=11), by_sex)
    assert set(few.estimates) == NAMES
