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

from msfl_client.labelled import Labelled
from msfl_common.config_classification import Classification
from msfl_common.feature_models import num_rounds_needed, predict_proba
from msfl_common.features import FEATURES
from tests.benchmarks.figure import Figure
from tests.feature_models import make_settings, play, pooled

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
        settings, rows, seconds = make_settings(model, INPUTS), [], []
        for seed in SEEDS:
            sites, test = _make(np.random.default_rng(seed))
            everything = pooled(sites)
            start = time.perf_counter()
            federated = _auroc_of(settings, sites, test, seed)
            seconds.append(time.perf_counter() - start)
            together = _auroc_of(settings, {"all": everything}, test, seed)
            alone = _auroc_of(settings, _smallest(sites), test, seed)
            rows.append((federated, together, _auroc(_their_scores(theirs, everything, test), test), alone))
        ours, together, reference, alone = map(float, np.mean(rows, axis=0))
        each = "; ".join(f"{row[0]:.3f} against {row[1]:.3f} and {row[2]:.3f}" for row in rows)
        detail = f"{how}: {each}; {np.median(seconds):.2f} s"
        figures += [
            Figure(
                f"{title}: AUROC below pooled", together - ours, "", WITHIN, "at_most", f"pooled {together:.3f}", detail
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
                f"{title}: AUROC above one site's own", ours - alone, "", 0.0, "at_least", f"one site {alone:.3f}", how
            ),
        ]
    return figures


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


def _smallest(sites: Mapping[str, Labelled]) -> dict[str, Labelled]:
    name = min(sites, key=lambda site: len(sites[site].labels_N))
    return {name: sites[name]}


def _auroc_of(settings: Classification, sites: Mapping[str, Labelled], test: Labelled, seed: int) -> float:
    """Rounds until the model is finished, or `ROUNDS` after the first sums where it has no end."""
    num_rounds = num_rounds_needed(settings) or ROUNDS + 1
    state = play(settings, sites, num_rounds, seed)
    return _auroc(predict_proba(settings, state, test.features_NP)[:, 1], test)


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
