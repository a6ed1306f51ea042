"""Logistic regression with an L2 penalty by Newton's method, for few cases with many features.

scikit-learn's `LogisticRegression()` spends some 20 to 60 steps of L-BFGS, most of it on bookkeeping, where Newton's
method needs about 8. The optimum lies in the space that the training cases span, so that N dimensions do for any number
of features; of K classes, K - 1 directions that sum to zero do. The optimum is the same; it is reached more exactly.

Legend: N cases, P features, Q dimensions with the intercept's, K classes, M = K - 1.
"""

from __future__ import annotations

import warnings
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import helmert
from scipy.linalg.lapack import dposv
from sklearn.exceptions import ConvergenceWarning

Floats = NDArray[np.float64]
MAX_ITERATIONS, TOLERANCE = 100, 1e-10


class RidgeLogistic:
    """`LogisticRegression(C=inverse_strength)`: binomial of two classes, multinomial of more.

    Attributes:
        classes_: 0..K-1.
    """

    def __init__(self, inverse_strength: float = 1.0) -> None:
        self._strength = inverse_strength
        self.classes_ = np.arange(0)

    def fit(self, features_NP: NDArray[np.floating[Any]], labels_N: NDArray[np.int64]) -> Self:
        """Fit to finite features and labels 0..K-1, each there; warns as scikit-learn does where it is not settled."""
        self.classes_ = np.arange(int(labels_N.max()) + 1)
        many = features_NP.shape[1] > len(features_NP)
        span_PQ, inputs_NQ = None, np.asarray(features_NP, np.float64)
        if many:
            span_PQ, upper_QN = np.linalg.qr(inputs_NQ.T)
            inputs_NQ = upper_QN.T
        inputs_NQ = np.column_stack([inputs_NQ, np.ones(len(inputs_NQ))])
        # Two classes have one score, as in scikit-learn; more have scores that sum to zero, in an orthonormal basis.
        basis_KM = np.array([[0.0], [1.0]]) if len(self.classes_) == 2 else helmert(len(self.classes_)).T
        found_QM, settled = _newton(inputs_NQ, np.eye(len(self.classes_))[labels_N], basis_KM, self._strength)
        if not settled:
            warnings.warn("Newton's method has not converged", ConvergenceWarning, stacklevel=2)
        coefficients_QK = found_QM @ basis_KM.T
        self._intercept_K = coefficients_QK[-1]
        self._coefficients_PK = coefficients_QK[:-1] if span_PQ is None else span_PQ @ coefficients_QK[:-1]
        return self

    def decision_function(self, features_NP: NDArray[np.floating[Any]]) -> Floats:
        """N x K scores; N of two classes."""
        scores_NK = features_NP @ self._coefficients_PK + self._intercept_K
        return np.asarray(scores_NK[:, 1] if len(self.classes_) == 2 else scores_NK)

    def predict_proba(self, features_NP: NDArray[np.floating[Any]]) -> Floats:
        """N x K probabilities."""
        return softmax(features_NP @ self._coefficients_PK + self._intercept_K)


def softmax(scores_NK: Floats) -> Floats:
    """N x K probabilities of scores."""
    powers_NK = np.exp(scores_NK - scores_NK.max(axis=1, keepdims=True))
    return np.asarray(powers_NK / powers_NK.sum(axis=1, keepdims=True))


def _newton(inputs_NQ: Floats, truth_NK: Floats, basis_KM: Floats, strength: float) -> tuple[Floats, bool]:
    """Q x M coefficients that minimize C times the log loss and half their squares, and whether they are settled."""
    num_dimensions, num_scores = inputs_NQ.shape[1], basis_KM.shape[1]
    penalty_Q = np.append(np.ones(num_dimensions - 1), 0.0)
    found_QM = np.zeros((num_dimensions, num_scores))
    loss, told_NK = _loss(found_QM, inputs_NQ, truth_NK, basis_KM, strength)
    for _ in range(MAX_ITERATIONS):
        gradient_QM = strength * inputs_NQ.T @ (told_NK - truth_NK) @ basis_KM + penalty_Q[:, None] * found_QM
        step_QM = _step(gradient_QM, inputs_NQ, told_NK, basis_KM, strength, penalty_Q)
        if step_QM is None:
            return found_QM, False
        gain = float((gradient_QM * step_QM).sum())  # twice of what the model of the loss promises
        if gain <= TOLERANCE * max(1.0, loss):
            return found_QM - step_QM, True
        length = 1.0
        while length > 1e-6:
            loss_next, told_next_NK = _loss(found_QM - length * step_QM, inputs_NQ, truth_NK, basis_KM, strength)
            if loss_next <= loss - 1e-4 * length * gain:
                break
            length /= 2
        else:
            return found_QM, False
        found_QM, loss, told_NK = found_QM - length * step_QM, loss_next, told_next_NK
    return found_QM, False


def _step(
    gradient_QM: Floats, inputs_NQ: Floats, told_NK: Floats, basis_KM: Floats, strength: float, penalty_Q: Floats
) -> Floats | None:
    """The gradient over the Hessian, Q x M; None where that cannot be solved."""
    num_dimensions, num_scores = gradient_QM.shape
    mean_NM = told_NK @ basis_KM
    curvature_NMM = np.einsum("nk,ka,kb->nab", told_NK, basis_KM, basis_KM) - mean_NM[:, :, None] * mean_NM[:, None, :]
    hessian = np.zeros((num_scores, num_dimensions, num_scores, num_dimensions))
    for one in range(num_scores):
        for other in range(one, num_scores):
            block_QQ = strength * (inputs_NQ.T * curvature_NMM[:, one, other]) @ inputs_NQ
            hessian[one, :, other], hessian[other, :, one] = block_QQ, block_QQ
        hessian[one, range(num_dimensions), one, range(num_dimensions)] += penalty_Q
    size = num_scores * num_dimensions
    # The intercept has no penalty: where no case is in doubt any more, a trace of one keeps its row from vanishing.
    matrix = hessian.reshape(size, size) + 1e-12 * np.eye(size)
    _, solved, fault = dposv(matrix, gradient_QM.T.ravel())
    return None if fault else np.asarray(solved.reshape(num_scores, num_dimensions).T)


def _loss(
    found_QM: Floats, inputs_NQ: Floats, truth_NK: Floats, basis_KM: Floats, strength: float
) -> tuple[float, Floats]:
    scores_NK = inputs_NQ @ found_QM @ basis_KM.T
    scores_NK -= scores_NK.max(axis=1, keepdims=True)
    told_NK = np.exp(scores_NK)
    total_N = told_NK.sum(axis=1)
    log_loss = float(np.log(total_N).sum() - (scores_NK * truth_NK).sum())
    return strength * log_loss + 0.5 * float((found_QM[:-1] ** 2).sum()), told_NK / total_N[:, None]
