"""The twelve classifiers of Appukuttan et al. (2025), in the libraries' defaults, and what may be tuned of each.

Legend: N cases, P features, K classes.

`MLR` is multinomial logistic regression. Where a solver stops at its limit of iterations it says so; the run counts
these fits and the report tells their share. LightGBM by default wants 20 cases in a leaf: below 40 training cases it
cannot split and tells every case the commonest class, here as in the paper. Random forest, support vector machines and
logistic regressions are scikit-learn's, fitted by quicker means.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from lightgbm import LGBMClassifier
from numpy.typing import NDArray
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from xgboost import XGBClassifier

from msfl_server.research.small_cohort.forest import build_forest
from msfl_server.research.small_cohort.logistic import RidgeLogistic
from msfl_server.research.small_cohort.machines import build_machine
from msfl_server.research.small_cohort.saga import build_saga


@dataclass(frozen=True)
class Range:
    """A hyperparameter's range, the same for grid, random and Bayesian search.

    Attributes:
        low, high: ends, both included.
        steps: values of the grid, evenly spaced, on a logarithmic scale where `log`.
        log: the scale.
        whole: only whole numbers.
    """

    low: float
    high: float
    steps: int
    log: bool = False
    whole: bool = False

    def at(self, share: float) -> float | int:
        """The value at a share of the range, 0 to 1."""
        span = self.high - self.low
        value = self.low * (self.high / self.low) ** share if self.log else self.low + span * share
        return round(value) if self.whole else float(value)


@dataclass(frozen=True)
class Classifier:
    """A classifier: how to build it from a seed and hyperparameters, and their ranges."""

    build: Callable[..., Any]
    ranges: Mapping[str, Range]


def _saga(l1_ratio: float) -> Callable[..., Any]:
    return lambda seed, **hyper: build_saga(seed, **{"l1_ratio": l1_ratio, **hyper})


def _svm(kernel: str) -> Callable[..., Any]:
    return lambda seed, **hyper: build_machine(kernel, seed, **hyper)


_C, _GAMMA = Range(1e-2, 1e2, 5, log=True), Range(1e-4, 1e-1, 4, log=True)
_RATE, _LEAF = Range(0.03, 0.3, 3, log=True), Range(1, 5, 3, whole=True)
CLASSIFIERS: Mapping[str, Classifier] = {
    "KNN": Classifier(
        lambda seed, **hyper: KNeighborsClassifier(**hyper),  # noqa: ARG005
        {"n_neighbors": Range(1, 7, 4, whole=True)},
    ),
    "LGBM": Classifier(
        lambda seed, **hyper: LGBMClassifier(random_state=seed, n_jobs=1, verbose=-1, deterministic=True, **hyper),
        {"learning_rate": _RATE, "min_child_samples": Range(2, 20, 3, log=True, whole=True)},
    ),
    "MLR_ENET": Classifier(_saga(0.5), {"C": _C, "l1_ratio": Range(0.1, 0.9, 3)}),
    "MLR_L1": Classifier(_saga(1.0), {"C": _C}),
    "MLR_L2": Classifier(lambda seed, **hyper: RidgeLogistic(hyper.get("C", 1.0)), {"C": _C}),  # noqa: ARG005
    "MLP": Classifier(
        lambda seed, **hyper: MLPClassifier(random_state=seed, **hyper),
        {"alpha": Range(1e-5, 1e-1, 3, log=True), "learning_rate_init": Range(1e-4, 1e-2, 3, log=True)},
    ),
    "SVM_POLY": Classifier(_svm("poly"), {"C": _C, "degree": Range(2, 4, 3, whole=True)}),
    "SVM_RBF": Classifier(_svm("rbf"), {"C": _C, "gamma": _GAMMA}),
    "SVM_SIG": Classifier(_svm("sigmoid"), {"C": _C, "gamma": _GAMMA}),
    "SVM_LIN": Classifier(_svm("linear"), {"C": _C}),
    "RF": Classifier(build_forest, {"max_depth": Range(2, 8, 3, whole=True), "min_samples_leaf": _LEAF}),
    "XGB": Classifier(
        lambda seed, **hyper: XGBClassifier(random_state=seed, n_jobs=1, **hyper),
        {"learning_rate": _RATE, "max_depth": Range(1, 6, 3, whole=True)},
    ),
}
# Those that the paper took from its first stage to its second.
REFINED = ("MLR_ENET", "MLR_L1", "MLR_L2", "SVM_LIN", "SVM_SIG", "RF")


def build_classifier(name: str, seed: int, hyper: Mapping[str, float] | None = None) -> Any:
    """An unfitted classifier; `hyper` in place of defaults."""
    return CLASSIFIERS[name].build(seed, **(hyper or {}))


def class_scores(model: Any, features_NP: NDArray[np.float64]) -> NDArray[np.float64]:
    """N x K scores, the highest of which is the class: probabilities, or a support vector machine's decision values."""
    if hasattr(model, "predict_proba"):
        return np.asarray(model.predict_proba(features_NP), np.float64)
    decision = np.asarray(model.decision_function(features_NP), np.float64)
    return np.stack([-decision, decision], axis=1) if decision.ndim == 1 else decision


def grid_points(ranges: Sequence[Range]) -> list[tuple[float, ...]]:
    """Every combination of the grid's values, as shares of the ranges."""
    axes = [np.linspace(0, 1, one.steps) for one in ranges]
    return [tuple(point) for point in np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))]
