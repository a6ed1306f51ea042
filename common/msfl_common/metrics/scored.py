"""Scores of cases, or their confusion matrix, under many weightings at once, with what several metrics need of them.

Legend: N cases, K classes, C scored classes, R weightings, B blocks of equal scores.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from msfl_common.metrics.calibration_fit import calibration_of

Floats = NDArray[np.float64]
Figure = TypeVar("Figure")

_NUM_BINS = 10


@dataclass(frozen=True)
class Confusion:
    """R confusion matrices, rows true, columns predicted.

    Attributes:
        counts_RKK: cases, weighted.
        positive: the classes that are held against the rest.
    """

    counts_RKK: Floats
    positive: tuple[int, ...]

    @cached_property
    def total(self) -> Floats:
        """All cases, R."""
        return np.asarray(self.counts_RKK.sum(axis=(1, 2)))

    @cached_property
    def right(self) -> Floats:
        """Cases of each class that were given it, K x R."""
        return np.asarray(np.einsum("rkk->kr", self.counts_RKK))

    @cached_property
    def true(self) -> Floats:
        """Cases of each class, K x R."""
        return np.asarray(self.counts_RKK.sum(axis=2).T)

    @cached_property
    def predicted(self) -> Floats:
        """Cases that were given each class, K x R."""
        return np.asarray(self.counts_RKK.sum(axis=1).T)

    @cached_property
    def is_one_class(self) -> NDArray[np.bool_]:
        """Whether fewer than two classes are at hand, R."""
        return np.asarray((self.true > 0).sum(axis=0) < 2)

    def over_classes(self, value_KR: Floats) -> Floats:
        """A figure of each class, over those that are scored and at hand."""
        at_hand_KR = (self.true > 0) | (len(self.true) == 2)
        return mean_defined(np.where(at_hand_KR, value_KR, np.nan)[list(self.positive)])


@dataclass(frozen=True)
class Scores:
    """Probabilities and outcomes under R weightings, and what several metrics need of them, computed once."""

    probabilities_NK: Floats
    labels_N: NDArray[np.int64]
    threshold: float
    weights_RN: Floats

    @cached_property
    def num_classes(self) -> int:
        """K."""
        return self.probabilities_NK.shape[1]

    @cached_property
    def total(self) -> Floats:
        """All cases, R."""
        return np.asarray(self.weights_RN.sum(axis=1))

    @cached_property
    def outcomes(self) -> Floats:
        """1 where a case is of a class, N x K."""
        return np.eye(self.num_classes)[self.labels_N]

    @cached_property
    def shares(self) -> list[Floats]:
        """Share of each scored class, C times R."""
        return self.of_each(lambda _, outcome_N, weights_RN: weights_RN @ outcome_N / self.total)

    @cached_property
    def areas(self) -> list[tuple[Floats, Floats]]:
        """AUROC and average precision of each scored class, C times R."""
        return self.of_each(_areas)

    @cached_property
    def calibrations(self) -> list[tuple[Floats, Floats]]:
        """Slope and intercept of each scored class, C times R."""
        return self.of_each(calibration_of)

    @cached_property
    def confusion(self) -> Confusion:
        """The matrices of the predicted classes."""
        predicted_N = predict_classes(self.probabilities_NK, self.threshold)
        pairs = np.eye(self.num_classes**2)[self.labels_N * self.num_classes + predicted_N]
        counts_RKK = (self.weights_RN @ pairs).reshape(-1, self.num_classes, self.num_classes)
        return Confusion(counts_RKK, scored_classes(self.num_classes))

    def of_each(self, figure: Callable[[Floats, Floats, Floats], Figure]) -> list[Figure]:
        """What a function of scores, outcomes and weights says of each scored class against the rest."""
        return [
            figure(self.probabilities_NK[:, number], self.outcomes[:, number], self.weights_RN)
            for number in scored_classes(self.num_classes)
        ]

    def over_classes(self, values_CR: Iterable[Floats]) -> Floats:
        """A figure of each scored class, over those at hand."""
        at_hand = [(share_R > 0) | (self.num_classes == 2) for share_R in self.shares]
        return mean_defined(
            np.stack([np.where(here_R, value_R, np.nan) for here_R, value_R in zip(at_hand, values_CR, strict=True)])
        )


def scored_classes(num_classes: int) -> tuple[int, ...]:
    """The classes that are held against the rest: the last of two, else each."""
    return (1,) if num_classes == 2 else tuple(range(num_classes))


def predict_classes(probabilities_NK: Floats, threshold: float) -> NDArray[np.int64]:
    """The class that each case is given; see the top of this file."""
    is_binary = probabilities_NK.shape[1] == 2
    predicted_N = probabilities_NK[:, 1] >= threshold if is_binary else np.argmax(probabilities_NK, axis=1)
    return np.asarray(predicted_N, dtype=np.int64)


def confusion_matrix(predicted_N: NDArray[np.int64], labels_N: NDArray[np.int64], num_classes: int) -> Floats:
    """Cases of each true class (rows) that were given each class (columns), K x K."""
    counts = np.bincount(labels_N * num_classes + predicted_N, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes).astype(np.float64)


def _areas(score_N: Floats, outcome_N: Floats, weights_RN: Floats) -> tuple[Floats, Floats]:
    """AUROC and average precision of each weighting; cases of equal score are one block."""
    order = np.argsort(-score_N, kind="stable")
    ends_B = np.append(np.flatnonzero(np.diff(score_N[order])), len(order) - 1)
    sorted_RN = weights_RN[:, order]
    positive_RB = np.cumsum(sorted_RN * outcome_N[order], axis=1)[:, ends_B]
    negative_RB = np.cumsum(sorted_RN * (1 - outcome_N[order]), axis=1)[:, ends_B]
    new_positive_RB = np.diff(positive_RB, axis=1, prepend=0.0)
    new_negative_RB = np.diff(negative_RB, axis=1, prepend=0.0)
    num_positive_R, num_negative_R = positive_RB[:, -1], negative_RB[:, -1]
    above_RB = positive_RB - new_positive_RB / 2
    precision_RB = ratio(positive_RB, positive_RB + negative_RB, empty=0.0)
    auroc_R = ratio((new_negative_RB * above_RB).sum(axis=1), num_positive_R * num_negative_R)
    auprc_R = ratio((new_positive_RB * precision_RB).sum(axis=1), num_positive_R)
    return auroc_R, np.where(num_negative_R > 0, auprc_R, np.nan)


def calibration_error(score_N: Floats, outcome_N: Floats, weights_RN: Floats) -> Floats:
    """Gap between score and frequency in bins of equal width without what chance adds to it, under each weighting."""
    bin_N = np.minimum((score_N * _NUM_BINS).astype(np.int64), _NUM_BINS - 1)
    in_bin_NB = np.eye(_NUM_BINS)[bin_N]
    gaps_RB = weights_RN @ (in_bin_NB * (outcome_N - score_N)[:, None])
    variances_RB = weights_RN @ (in_bin_NB * (score_N * (1 - score_N))[:, None])
    return np.asarray(gap_without_chance(gaps_RB, variances_RB) / weights_RN.sum(axis=1))


def gap_without_chance(gaps_RB: Floats, variances_RB: Floats) -> Floats:
    """Sum over bins of the gap between outcomes and probabilities, less what outcomes by chance add to it.

    Even of a perfectly calibrated model the gaps of few cases are large. A gap's absolute value has the mean of a
    folded normal distribution (Leone, Nelson and Nottingham, Technometrics 1961) about the true gap, with the variance
    of outcomes at these probabilities, cases being independent. The excess of that mean over the true gap is taken
    off, the true gaps being the found ones, shrunk together by the share of their squares that chance does not
    explain. So small an estimate may come out below 0, which stands for 0.

    Args:
        gaps_RB: sums of outcome minus probability.
        variances_RB: sums of probability times its complement.

    Returns:
        The sum, R.
    """
    squares_RB = gaps_RB**2
    unexplained_R = ratio((squares_RB - variances_RB).sum(axis=1), squares_RB.sum(axis=1), empty=0.0)
    true_RB = np.abs(gaps_RB) * np.sqrt(np.maximum(unexplained_R, 0.0))[:, None]
    deviation_RB = np.sqrt(np.maximum(variances_RB, 1e-300))
    relative_RB = true_RB / deviation_RB
    folded_RB = math.sqrt(2 / math.pi) * np.exp(-(relative_RB**2) / 2) - 2 * relative_RB * ndtr(-relative_RB)
    excess_RB = np.where(variances_RB > 0, deviation_RB * folded_RB, 0.0)
    found_R: Floats = (np.abs(gaps_RB) - excess_RB).sum(axis=1)
    return found_R


def mean_defined(values_KR: Floats) -> Floats:
    """Mean over the classes for which a figure is defined; NaN where it is for none."""
    defined_KR = np.isfinite(values_KR)
    return ratio(np.where(defined_KR, values_KR, 0.0).sum(axis=0), defined_KR.sum(axis=0))


def ratio(part: Floats, whole: NDArray[Any], *, empty: float = math.nan) -> Floats:
    """A quotient, and `empty` where there is nothing to divide by."""
    return np.divide(part, whole, out=np.full(np.broadcast_shapes(part.shape, whole.shape), empty), where=whole > 0)
