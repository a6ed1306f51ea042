"""What the first sums give: means, scales, selection and components; some models need nothing else.

All of it is what pooled rows would give; where scikit-learn has the same, with its conventions.

Legend: see `msfl_common.feature_models`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from msfl_common.errors import NoCaseOfClassError
from msfl_common.feature_models.scores import targets
from msfl_common.feature_models.settings import Settings, is_numeric
from msfl_common.feature_models.state import Floats, State

_CONSTANT = 1e-18  # an input whose variance is at most so much of its squared mean is constant
_RIDGE = 1.0  # of the linear model that elimination ranks inputs by, as RidgeClassifier's alpha
_ROUNDING = 1e-14  # share of an input's variance
_RANK = 1e-10  # share of the largest eigenvalue, below which a direction counts as constant


@dataclass(frozen=True)
class OutcomeSums:
    """A number that is predicted, over the cases of all sites.

    Attributes:
        mean: of all cases.
        variance: of all cases, divided by their number.
        covariance_P: with each input, divided by the number of cases; NaN without a scatter.
    """

    mean: float
    variance: float
    covariance_P: Floats


@dataclass(frozen=True)
class Sums:
    """The cases of all sites.

    Attributes:
        counts_K: cases of each class.
        mean_P: of all cases.
        between_KP: what each class's mean is off that.
        squares_KP: squared deviations from the classes' means, summed.
        scatter_CPP: the same as matrices, one of all classes together or one of each; None where not asked for.
        outcome: of a number that is predicted; its cases are one class.
    """

    counts_K: Floats
    mean_P: Floats
    between_KP: Floats
    squares_KP: Floats
    scatter_CPP: Floats | None
    outcome: OutcomeSums | None = None

    @cached_property
    def num_cases(self) -> float:
        """Cases of all classes."""
        return float(self.counts_K.sum())

    @cached_property
    def variance(self) -> Floats:
        """Of all cases, divided by their number, P."""
        return np.asarray((self.squares_KP.sum(axis=0) + self.counts_K @ self.between_KP**2) / self.num_cases)

    @cached_property
    def varies(self) -> NDArray[np.bool_]:
        """Which inputs are not constant, P."""
        return np.asarray(self.variance > _CONSTANT * self.mean_P**2)

    @cached_property
    def within(self) -> Floats:
        """Scatter within the classes, P x P."""
        assert self.scatter_CPP is not None
        return np.asarray(self.scatter_CPP.sum(axis=0))

    @cached_property
    def covariance(self) -> Floats:
        """Of all cases, divided by their number, P x P."""
        return np.asarray((self.within + (self.between_KP.T * self.counts_K) @ self.between_KP) / self.num_cases)

    def variance_through(self, projection_PQ: Floats) -> Floats:
        """Of prepared inputs, Q; without the scatter, each of them is one input scaled."""
        if self.scatter_CPP is None:
            return np.asarray(self.variance @ projection_PQ**2)
        return np.asarray(np.einsum("pq,pr,rq->q", projection_PQ, self.covariance, projection_PQ))


def add_up(settings: Settings, told: State) -> Sums:
    """What the first sums of all sites together tell; see `raw_sums`.

    Raises:
        NoCaseOfClassError: a class without a case at any site.
    """
    counts_K = told["counts"]
    expect_every_class(settings, counts_K)
    means_KP = told["sums"] / counts_K[:, None]
    mean_P = counts_K @ means_KP / counts_K.sum()
    sums = _without_noise(Sums(counts_K, mean_P, means_KP - mean_P, told["squares"], told.get("scatter")))
    return _outcome_apart(sums) if is_numeric(settings) else sums


def _outcome_apart(sums: Sums) -> Sums:
    """The sums of the inputs, and of the number that is their last column."""
    variance, mean_P = sums.variance, sums.mean_P
    unknown_P = np.full(len(mean_P) - 1, np.nan)
    covariance_P = unknown_P if sums.scatter_CPP is None else sums.covariance[:-1, -1]
    outcome = OutcomeSums(float(mean_P[-1]), float(variance[-1]), covariance_P)
    scatter_CPP = None if sums.scatter_CPP is None else sums.scatter_CPP[:, :-1, :-1]
    return Sums(sums.counts_K, mean_P[:-1], sums.between_KP[:, :-1], sums.squares_KP[:, :-1], scatter_CPP, outcome)


def expect_every_class(settings: Settings, counts_K: Floats) -> None:
    """Refuse to learn a class that no site's sums are of.

    Raises:
        NoCaseOfClassError: names the class.
    """
    if is_numeric(settings):
        if counts_K.sum() < 1:
            raise NoCaseOfClassError(
                "no training case at any site that has min_patients patients or more; more sites or patients are "
                "needed, or a lower min_patients"
            )
        return
    for name, count in zip(settings.outcome.classes, counts_K, strict=True):
        if count < 1:
            raise NoCaseOfClassError(
                f"class {name}: no training case at any site that has min_patients patients of it or more; more sites "
                "or patients are needed, or a lower min_patients, or a column's `outcome.classes` without it"
            )


def _without_noise(sums: Sums) -> Sums:
    """A constant input varies by rounding alone, which scaling would blow up; here it does not vary at all."""
    scatter_CPP = None if sums.scatter_CPP is None else sums.scatter_CPP * np.outer(sums.varies, sums.varies)
    between_KP, squares_KP = sums.between_KP * sums.varies, sums.squares_KP * sums.varies
    return replace(sums, between_KP=between_KP, squares_KP=squares_KP, scatter_CPP=scatter_CPP)


def fit_preparation(settings: Settings, sums: Sums) -> State:
    """Means, and scaling, selection and components as one projection.

    A constant input keeps a scale of 1. A principal component's largest loading is positive; a component in which
    nothing varies is 0, as where inputs outnumber cases.
    """
    preparation = settings.preparation
    deviation_P = np.where(sums.varies, np.sqrt(sums.variance), 1.0)
    scale_P = deviation_P if preparation.scaling == "standard" else np.ones_like(deviation_P)
    match preparation.selection:
        case "k-best":
            kept = k_best(sums, preparation.num_selected)
        case "rfe":
            kept = eliminate(sums, deviation_P, preparation.num_selected)
        case _:
            kept = np.arange(len(scale_P))
    projection_PQ = np.diag(1 / scale_P)[:, kept]
    if preparation.reduction == "pca":
        num = min(preparation.num_components, len(kept))
        projection_PQ = projection_PQ @ components(projection_PQ.T @ sums.covariance @ projection_PQ, num)
    variance_Q = sums.variance_through(projection_PQ)
    moved_Q = np.abs(projection_PQ).T @ np.abs(sums.mean_P)
    varies_Q = variance_Q > _CONSTANT * moved_Q**2
    spread_Q = np.where(varies_Q, np.sqrt(np.where(varies_Q, variance_Q, 1.0)), 1.0)
    return {"counts": sums.counts_K, "mean": sums.mean_P, "projection": projection_PQ, "spread": spread_Q}


def k_best(sums: Sums, num: int) -> NDArray[np.intp]:
    """Inputs with the largest F of an analysis of variance, in their own order; a constant one comes last.

    Where a number is predicted, F is that of a regression on one input, which grows with their correlation.
    """
    if sums.outcome is not None:
        share_P = sums.outcome.covariance_P**2 / np.where(sums.varies, sums.variance, 1.0)
        return np.sort(np.argsort(-np.where(sums.varies, share_P, -1.0), kind="stable")[:num])
    num_classes = len(sums.counts_K)
    between_P = sums.counts_K @ sums.between_KP**2 / (num_classes - 1)
    within_P = sums.squares_KP.sum(axis=0) / max(sums.num_cases - num_classes, 1)
    ratio_P = np.where(sums.varies, between_P / np.maximum(within_P, 1e-300), -1.0)
    return np.sort(np.argsort(-ratio_P, kind="stable")[:num])


def eliminate(sums: Sums, deviation_P: Floats, num: int) -> NDArray[np.intp]:
    """Recursive elimination (Guyon et al. 2002): fit, drop the input with the smallest coefficients, and again.

    The linear model is a ridge regression of each class's indicator (1 or -1), or of the number that is predicted, on
    standardised inputs, solved from the same sums at each step, so that no further rounds are needed.
    """
    covariance_PP = sums.covariance / np.outer(deviation_P, deviation_P) * sums.num_cases
    cross_PV = _wanted_sums(sums) / deviation_P[:, None]
    kept = np.arange(len(deviation_P))
    while len(kept) > num:
        ridged = covariance_PP[np.ix_(kept, kept)] + _RIDGE * np.eye(len(kept))
        weight = (np.linalg.solve(ridged, cross_PV[kept]) ** 2).sum(axis=1)
        kept = np.delete(kept, int(weight.argmin()))
    return kept


def _wanted_sums(sums: Sums) -> Floats:
    """Sum over cases of input times what is predicted, both centred, P x V."""
    if sums.outcome is not None:
        return sums.outcome.covariance_P[:, None] * sums.num_cases
    return 2 * indicator_sums(sums, 1 if len(sums.counts_K) == 2 else len(sums.counts_K))


def components(covariance_PP: Floats, num: int) -> Floats:
    """The first principal components as columns."""
    values_P, vectors_PP = np.linalg.eigh(covariance_PP)
    vectors_PQ = vectors_PP[:, ::-1][:, :num]
    largest_Q = np.abs(vectors_PQ).argmax(axis=0)
    signs_Q = np.sign(vectors_PQ[largest_Q, np.arange(num)])
    varies_Q = values_P[::-1][:num] > _RANK * max(values_P[-1], 0.0)
    return np.where(varies_Q, vectors_PQ * signs_Q, 0.0)


def indicator_sums(sums: Sums, num: int) -> Floats:
    """Sum over cases of input times class indicator, both centred, P x V."""
    classes_KV = targets(np.arange(len(sums.counts_K)), len(sums.counts_K), num)
    cross_PV: Floats = (sums.between_KP.T * sums.counts_K) @ classes_KV
    return cross_PV


def least_solution(matrix_QQ: Floats, right_QV: Floats, variance_Q: Floats) -> Floats:
    """The least solution of a symmetric system; what varies by rounding alone gets no part in it."""
    diagonal_Q = np.diag(matrix_QQ)
    inverse_Q = np.where(diagonal_Q > _ROUNDING * variance_Q, 1 / np.sqrt(np.maximum(diagonal_Q, 1e-300)), 0.0)
    inverse_QQ = np.linalg.pinv(matrix_QQ * np.outer(inverse_Q, inverse_Q), rcond=_RANK, hermitian=True)
    solution_QV: Floats = inverse_QQ @ (right_QV * inverse_Q[:, None]) * inverse_Q[:, None]
    return solution_QV
