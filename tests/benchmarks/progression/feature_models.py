"""Feature models over sites against the same model on pooled cases, scikit-learn or XGBoost, and the smallest site."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from xgboost import XGBClassifier

from msfl_client.feature_training import contribute
from msfl_client.labelled import Labelled
from msfl_common.config_classification import Classification
from msfl_common.feature_models import State, first_state, is_finished, predict_proba
from msfl_common.features import FEATURES
from msfl_server.feature_aggregation import combine
from tests.benchmarks.figure import Figure

SIZES, TEST_CASES, INPUTS = (60, 60, 60), 2000, 12
SEEDS = range(3)
ROUNDS = 20  # of the models that have no end
WITHIN = 0.02

MODELS: Mapping[str, tuple[dict[str, Any], Any]] = {
    "logistic, l2": ({"kind": "logistic"}, LogisticRegression()),
    "logistic, l1": (
        {"kind": "logistic", "penalty": "l1"},
        LogisticRegression(l1_ratio=1, solver="saga", max_iter=5000),
    ),
    "logistic, elastic net": (
        {"kind": "logistic", "penalty": "elastic-net"},
        LogisticRegression(l1_ratio=0.5, solver="saga", max_iter=5000),
    ),
    "linear SVM": ({"kind": "linear-svm"}, LinearSVC(dual=False)),
    "RBF SVM": ({"kind": "svm-rbf"}, SVC()),
    "polynomial SVM": ({"kind": "svm-poly"}, SVC(kernel="poly", coef0=1)),
    "sigmoid SVM": ({"kind": "svm-sigmoid"}, SVC(kernel="sigmoid")),
    "LDA": ({"kind": "lda"}, LinearDiscriminantAnalysis(solver="lsqr")),
    "naive Bayes": ({"kind": "naive-bayes"}, GaussianNB()),
    "least squares": ({"kind": "least-squares"}, LinearRegression()),
    "perceptron": ({"kind": "mlp"}, MLPClassifier((32,), learning_rate_init=1e-2, max_iter=60, random_state=0)),
    "boosted trees": ({"kind": "gradient-boosting"}, XGBClassifier(n_estimators=ROUNDS, max_depth=3, n_jobs=1)),
    "random forest": (
        {"kind": "random-forest"},
        RandomForestClassifier(100, max_depth=6, min_samples_leaf=5, random_state=0),
    ),
}


def measure() -> list[Figure]:
    """AUROC on unseen cases of all sites, mean over the seeds."""
    how = f"{len(SIZES)} sites x {SIZES[0]} cases, {INPUTS} inputs, {TEST_CASES} unseen cases, {len(SEEDS)} seeds"
    figures = []
    for title, (model, theirs) in MODELS.items():
        settings = _settings(model)
        rows, seconds = [], []
        for seed in SEEDS:
            sites, test = _make(np.random.default_rng(seed))
            start = time.perf_counter()
            state = _play(settings, sites, seed)
            seconds.append(time.perf_counter() - start)
            together = {"all": _pool(sites)}
            rows.append(
                (
                    _auroc(predict_proba(settings, state, test.features_NP)[:, 1], test),
                    _auroc(predict_proba(settings, _play(settings, together, seed), test.features_NP)[:, 1], test),
                    _auroc(_their_scores(theirs, together["all"], test), test),
                    _auroc(
                        predict_proba(settings, _play(settings, _smallest(sites), seed), test.features_NP)[:, 1], test
                    ),
                )
            )
        ours, pooled, reference, local = np.mean(rows, axis=0)
        each = "; ".join(f"{row[0]:.3f} against {row[1]:.3f} and {row[2]:.3f}" for row in rows)
        detail = f"{how}: {each}; {np.median(seconds):.2f} s"
        figures += [
            Figure(
                f"{title}: AUROC below pooled", pooled - ours, "", WITHIN, "at_most", f"pooled {pooled:.3f}", detail
            ),
            Figure(
                f"{title}: AUROC below the usual library's, pooled",
                reference - ours,
                "",
                WITHIN,
                "at_most",
                f"{type(theirs).__name__} {reference:.3f}",
                how,
            ),
            Figure(
                f"{title}: AUROC above one site's own", ours - local, "", 0.0, "at_least", f"one site {local:.3f}", how
            ),
        ]
    return figures


def _settings(model: dict[str, Any]) -> Classification:
    outcome = {"column": "course", "classes": ("no", "yes")}
    return Classification.model_validate(
        {"outcome": outcome, "features": tuple(FEATURES)[:INPUTS], "clinical": (), "model": model}
    )


def _make(rng: np.random.Generator) -> tuple[dict[str, Labelled], Labelled]:
    """Correlated inputs; the log odds are a line in some, a square and a product of others."""
    mixing = np.eye(INPUTS) + 0.2 * rng.normal(size=(INPUTS, INPUTS)) / np.sqrt(INPUTS)
    weights = 0.6 * rng.normal(size=INPUTS) * (rng.random(INPUTS) < 0.6)

    def draw(num: int) -> Labelled:
        values = rng.normal(size=(num, INPUTS)) @ mixing
        odds = values @ weights + 0.3 * (values[:, 0] ** 2 - 1) + 0.3 * values[:, 1] * values[:, 2] - 0.5
        labels = (rng.random(num) < 1 / (1 + np.exp(-odds))).astype(np.int64)
        return Labelled(tuple(FEATURES)[:INPUTS], values, labels, tuple(map(str, range(num))))

    return {f"site-{number}": draw(size) for number, size in enumerate(SIZES)}, draw(TEST_CASES)


def _pool(sites: Mapping[str, Labelled]) -> Labelled:
    parts = list(sites.values())
    labels = np.concatenate([part.labels_N for part in parts])
    values = np.concatenate([part.features_NP for part in parts])
    return Labelled(parts[0].names, values, labels, tuple(map(str, range(len(labels)))))


def _smallest(sites: Mapping[str, Labelled]) -> dict[str, Labelled]:
    name = min(sites, key=lambda site: len(sites[site].labels_N))
    return {name: sites[name]}


def _play(settings: Classification, sites: Mapping[str, Labelled], seed: int) -> State:
    """Rounds until the model is finished, or `ROUNDS` after the first sums where it has no end."""
    state = first_state(settings, seed)
    endless = settings.model.kind in ("mlp", "gradient-boosting")
    for number in range(1, (ROUNDS if endless else 1000) + 2):
        if is_finished(settings, state):
            break
        answers = {
            site: (contribute(settings, state, cases, seed, number, 1)[0], len(cases.labels_N))
            for site, cases in sites.items()
        }
        state = combine(settings, state, answers)
    return state


def _their_scores(estimator: Any, train: Labelled, test: Labelled) -> NDArray[np.float64]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a perceptron that has not converged after as many passes as ours
        fitted = make_pipeline(StandardScaler(), estimator).fit(train.features_NP, train.labels_N)
    if hasattr(fitted, "decision_function"):
        return np.asarray(fitted.decision_function(test.features_NP))
    if hasattr(fitted, "predict_proba"):
        return np.asarray(fitted.predict_proba(test.features_NP)[:, 1])
    return np.asarray(fitted.predict(test.features_NP))


def _auroc(scores: NDArray[np.float64], cases: Labelled) -> float:
    return float(roc_auc_score(cases.labels_N, scores))
