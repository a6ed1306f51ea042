"""Searches of hyperparameters: equal budgets, the same ranges, only the training cases."""

from __future__ import annotations

import numpy as np
import pytest

from msfl_server.research.small_cohort import search as pipelines_search
from msfl_server.research.small_cohort.classifiers import CLASSIFIERS, Range, build_classifier, grid_points
from msfl_server.research.small_cohort.search import INNER_FOLDS, at_point, bayes, tune
from msfl_server.research.small_cohort.space import STANDARD
from msfl_server.research.small_cohort.steps import row_scaled


def test_ranges_have_both_ends() -> None:
    wide, whole = Range(0.01, 100, 5, log=True), Range(1, 7, 4, whole=True)
    assert [wide.at(share) for share in (0, 0.5, 1)] == pytest.approx([0.01, 1, 100])
    assert [whole.at(point[0]) for point in grid_points([whole])] == [1, 3, 5, 7]
    assert len(grid_points([wide, whole])) == 20


def test_every_classifier_takes_its_hyperparameters() -> None:
    features, labels = np.random.default_rng(0).normal(size=(30, 3)), np.arange(30) % 2
    for name, classifier in CLASSIFIERS.items():
        if name in ("MLP", "XGB"):
            continue  # seconds each; they are built below
        for share in (0.0, 1.0):
            hyper = at_point(name, (share,) * len(classifier.ranges))
            with pipelines_search.unsettled_fits():
                build_classifier(name, 0, hyper).fit(features, labels)
    assert build_classifier("MLP", 0, at_point("MLP", (0, 0))).alpha == pytest.approx(1e-5)
    assert build_classifier("XGB", 0, at_point("XGB", (1, 1))).max_depth == 6


@pytest.mark.slow
def test_all_searches_evaluate_equally_often(monkeypatch) -> None:
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(20, 3)), (np.arange(20) % 2).astype(np.int64)
    features[:, 0] += 2 * labels
    patients, scaled = [f"p{number}" for number in range(20)], row_scaled(features, None)
    builds = []
    monkeypatch.setattr(
        pipelines_search, "build_classifier", lambda *given: builds.append(given) or build_classifier(*given)
    )
    counts = {}
    for search in ("grid", "random", "bayes"):
        builds.clear()
        hyper = tune("SVM_RBF", search, scaled, labels, patients, np.arange(20), STANDARD, seed=1)
        counts[search] = len(builds)
        assert 0.01 <= hyper["C"] <= 100
        assert hyper == tune("SVM_RBF", search, scaled, labels, patients, np.arange(20), STANDARD, seed=1)
    assert set(counts.values()) == {20 * INNER_FOLDS}


@pytest.mark.long
def test_bayesian_search_beats_chance_on_a_smooth_hill() -> None:
    ranges = {"x": Range(0.001, 1, 3, log=True), "y": Range(1, 40, 5, whole=True)}

    def hill(hyper):
        return -((np.log10(hyper["x"]) / 3 + 0.27) ** 2) - ((hyper["y"] - 9) / 40) ** 2

    guided, drawn = [], []
    for seed in range(3):
        tried = bayes(hill, ranges, 15, seed)
        assert len(tried) == 15
        assert all(0.001 <= hyper["x"] <= 1 and hyper["y"] in range(1, 41) for hyper, _ in tried)
        guided.append(max(value for _, value in tried))
        points = np.random.default_rng(seed).random((15, 2))
        drawn.append(max(hill({"x": ranges["x"].at(x), "y": ranges["y"].at(y)}) for x, y in points))
    assert np.median(guided) > np.median(drawn) / 3
    assert np.median(guided) > -0.001
    assert bayes(hill, ranges, 15, 2) == tried
