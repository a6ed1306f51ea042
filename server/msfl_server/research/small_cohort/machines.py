"""scikit-learn's support vector machines without what they spend on thirty cases.

`SVC` and `SVR` validate their input for longer than they fit it: on 29 cases, nine tenths of their time. Here the same
compiled solver is called with the same arguments, and gives the same to the last bit. It is not public API. So it is
held against these classes once in a process, and where a release of scikit-learn has moved it or finds other numbers,
they are taken: the same figures, later.

Legend: N cases, P features, K classes, S support vectors, V pairs of classes.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import SVC, SVR

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
# libsvm has no limit of its own; on features of very different scales it could turn for minutes.
SVM_ITERATIONS = 50_000
_SVC, _SVR = 0, 3  # libsvm's numbers of its machines


class LeanMachine:
    """`SVC(kernel=..., max_iter=SVM_ITERATIONS, ...)`, for finite features and labels 0..K-1.

    Attributes:
        decision_function_shape: as of `SVC`.
        classes_: 0..K-1.
    """

    def __init__(self, kernel: str, C: float = 1.0, gamma: float | str = "scale", degree: int = 3) -> None:
        self._settings = {"kernel": kernel, "degree": int(degree), "coef0": 0.0, "cache_size": 200.0}
        self._strength, self._gamma = C, gamma
        self.decision_function_shape = "ovr"
        self.classes_ = np.arange(0)

    def fit(self, features_NP: NDArray[np.floating[Any]], labels_N: Labels) -> Self:
        """Fit, and warn as `SVC` does where it stops at its limit."""
        inputs_NP = np.ascontiguousarray(features_NP, np.float64)
        if self._gamma == "scale":
            variance = inputs_NP.var()
            self._gamma = 1.0 / (inputs_NP.shape[1] * variance) if variance != 0 else 1.0
        self.classes_ = np.arange(int(labels_N.max()) + 1)
        self._fitted = _libsvm_fit(
            inputs_NP,
            labels_N.astype(np.float64),
            svm_type=_SVC,
            class_weight=np.ones(len(self.classes_)),
            C=self._strength,
            gamma=float(self._gamma),
            **self._settings,
        )
        return self

    def decision_function(self, features_NP: NDArray[np.floating[Any]]) -> Floats:
        """N x K scores, or N x V between each two classes with `ovo`; N of two classes."""
        from sklearn.svm import _libsvm

        support, vectors_SP, counts_K, weights, intercepts, *probabilities = self._fitted[:7]
        decision_NV: Floats = _libsvm.decision_function(
            np.ascontiguousarray(features_NP, np.float64),
            support,
            vectors_SP,
            counts_K,
            weights,
            intercepts,
            *probabilities,
            svm_type=_SVC,
            gamma=float(self._gamma),
            **self._settings,
        )
        if len(self.classes_) == 2:
            return -decision_NV.ravel()
        if self.decision_function_shape == "ovo":
            return decision_NV
        return _of_each_class(decision_NV, len(self.classes_))


def build_machine(kernel: str, seed: int, **hyper: Any) -> LeanMachine | SVC:
    """An unfitted support vector machine; the lean one where it is the same as scikit-learn's."""
    if machines_are_the_same():
        return LeanMachine(kernel, **hyper)
    return SVC(kernel=kernel, random_state=seed, max_iter=SVM_ITERATIONS, **hyper)


def regression_weights(features_NP: Floats, targets_N: Labels) -> Floats:
    """Coefficients of `SVR(kernel="linear", max_iter=SVM_ITERATIONS)`; warns where it stops at its limit."""
    if machines_are_the_same():
        return _lean_weights(features_NP, targets_N)
    weights_P: Floats = SVR(kernel="linear", max_iter=SVM_ITERATIONS).fit(features_NP, targets_N).coef_[0]
    return weights_P


@cache
def machines_are_the_same() -> bool:
    """Whether scikit-learn, as it is installed, gives the lean machines' numbers to the last bit."""
    features_NP = np.random.default_rng(0).normal(size=(40, 12))

    def agree(labels_N: Labels) -> bool:
        for kernel in ("linear", "sigmoid", "rbf", "poly"):
            plain = SVC(kernel=kernel, max_iter=SVM_ITERATIONS).fit(features_NP[:30], labels_N[:30])
            lean = LeanMachine(kernel).fit(features_NP[:30], labels_N[:30])
            if not np.array_equal(lean.decision_function(features_NP), plain.decision_function(features_NP)):
                return False
        weights_P = SVR(kernel="linear").fit(features_NP, labels_N).coef_[0]
        return np.array_equal(_lean_weights(features_NP, labels_N), weights_P)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        try:
            return all(agree(np.arange(40) % num_classes) for num_classes in (2, 3))
        except Exception:  # a release that has moved or changed what is private: whatever it says, it is not the same
            return False


def _lean_weights(features_NP: Floats, targets_N: Labels) -> Floats:
    _, vectors_SP, _, weights, *_ = _libsvm_fit(
        np.ascontiguousarray(features_NP, np.float64),
        targets_N.astype(np.float64),
        svm_type=_SVR,
        class_weight=np.empty(0),
        C=1.0,
        gamma=0.0,
        kernel="linear",
        degree=3,
        coef0=0.0,
        cache_size=200.0,
    )
    return np.asarray((weights @ vectors_SP)[0])


def _libsvm_fit(inputs_NP: Floats, targets_N: Floats, **settings: Any) -> tuple[Any, ...]:
    from sklearn.svm import _libsvm

    fitted: tuple[Any, ...] = _libsvm.fit(
        inputs_NP,
        targets_N,
        sample_weight=np.empty(0),
        nu=0.0,
        probability=False,
        shrinking=True,
        tol=1e-3,
        epsilon=0.0 if settings["svm_type"] == _SVC else 0.1,
        max_iter=SVM_ITERATIONS,
        random_seed=0,
        **settings,
    )
    if fitted[7] == 1:
        warnings.warn(f"libsvm stopped at {SVM_ITERATIONS} steps", ConvergenceWarning, stacklevel=3)
    return fitted


def _of_each_class(decision_NV: Floats, num_classes: int) -> Floats:
    """N x K: a class's votes of its pairs, with its decisions to break ties, as `SVC` has them."""
    from sklearn.utils.multiclass import _ovr_decision_function

    scores_NK: Floats = _ovr_decision_function(decision_NV < 0, -decision_NV, num_classes)
    return scores_NK
