"""How many independent cases a site's figures of two classes stand for, visits of a patient being alike.

Wilson's interval of so many is then the figure's. Of a share they are its cases, divided by their design effect (Kish,
Survey Sampling 1965): its variance over patients against that of independent cases. The design effect lies between 1
and what it would be if all visits of a patient agreed, which also stands where all cases agree and nothing tells.

Legend: N cases, P patients.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from msfl_common.metrics.calibration_fit import standard_errors
from msfl_common.metrics.intervals import Z95, clustered_ratio, t95
from msfl_common.metrics.scored import Floats, Scores, predict_classes


class Size(NamedTuple):
    """What an interval rests on.

    Attributes:
        effective: independent cases that tell as much; NaN where it cannot be told.
        num_patients: patients of the smallest group that the figure rests on.
    """

    effective: float
    num_patients: int


@dataclass(frozen=True)
class SiteCases:
    """Scores of a site, and whose they are.

    Attributes:
        scores: under one weighting, that of ones.
        patient_N: number of each case's patient, from 0 without gaps.
    """

    scores: Scores
    patient_N: NDArray[np.int64]

    @cached_property
    def true(self) -> Floats:
        """1 where a case is of the last class."""
        return np.asarray(self.scores.labels_N == self.scores.num_classes - 1, dtype=np.float64)

    @cached_property
    def called(self) -> Floats:
        """1 where a case is given the last class."""
        called_N = predict_classes(self.scores.probabilities_NK, self.scores.threshold)
        return np.asarray(called_N == self.scores.num_classes - 1, dtype=np.float64)

    @cached_property
    def fewest_patients(self) -> int:
        """Patients of the class that has the fewest."""
        labels_N = self.scores.labels_N
        return min(len(np.unique(self.patient_N[labels_N == label])) for label in np.unique(labels_N))

    @cached_property
    def calibration_errors(self) -> tuple[float, float]:
        """Standard errors of calibration slope and intercept."""
        return standard_errors(self.scores.probabilities_NK[:, -1], self.true, self.patient_N)


SizeOf = Callable[[SiteCases], Size]


def of_share(part_N: Floats, whole_N: Floats, patient_N: NDArray[np.int64]) -> Size:
    """Of the share that a part (0 or 1) has of a whole (0 or 1)."""
    num, largest = float(whole_N.sum()), _largest_effect(whole_N, patient_N)
    share, standard_error, num_patients = clustered_ratio(part_N * whole_N, whole_N, patient_N)
    if not num_patients:
        return Size(math.nan, 0)
    return Size(num / _within(standard_error**2, share * (1 - share) / num, largest), num_patients)


def of_sensitivity(cases: SiteCases) -> Size:
    """Of the positive cases."""
    return of_share(cases.called, cases.true, cases.patient_N)


def of_specificity(cases: SiteCases) -> Size:
    """Of the negative cases."""
    return of_share(1 - cases.called, 1 - cases.true, cases.patient_N)


def of_precision(cases: SiteCases) -> Size:
    """Of the cases called positive."""
    return of_share(cases.true, cases.called, cases.patient_N)


def of_accuracy(cases: SiteCases) -> Size:
    """Of all cases."""
    right_N = np.asarray(cases.called == cases.true, dtype=np.float64)
    return of_share(right_N, np.ones_like(right_N), cases.patient_N)


def of_balanced_accuracy(cases: SiteCases) -> Size:
    """Of a mean of two shares of different cases: a quarter of the sum of their variances, over patients."""
    positive_N, right_N = cases.true > 0, np.asarray(cases.called == cases.true, dtype=np.float64)
    counts_N = np.where(positive_N, positive_N.sum(), (~positive_N).sum())
    share_N = np.where(positive_N, right_N[positive_N].mean(), right_N[~positive_N].mean())
    counts = positive_N.sum(), (~positive_N).sum()
    effect = _effect((right_N - share_N) / counts_N, positive_N, cases.patient_N)
    return Size(4 / sum(1 / count for count in counts) / effect, cases.fewest_patients)


def of_f_beta(beta2: float) -> SizeOf:
    """Of F-beta, a ratio of sums: its variance is linearised over patients.

    F1 is 2 g / (1 + g) of the share g of true positives among cases that are positive or called so (Lam, Gopal and
    Qian, arXiv:2309.14621): so many cases count half near 0 and double near 1. These are the bounds, and stand where
    all cases agree and there is no variance.
    """

    def size_of(cases: SiteCases) -> Size:
        both_N, either_N = cases.true * cases.called, np.maximum(cases.true, cases.called)
        if not either_N.any():
            return Size(math.nan, 0)
        weighted_N = beta2 * cases.true + cases.called
        value, standard_error, num_patients = clustered_ratio((1 + beta2) * both_N, weighted_N, cases.patient_N)
        largest = float(either_N.sum())
        fewest = largest / _largest_effect(either_N, cases.patient_N)
        if not standard_error > 0:
            return Size(2 * fewest if value else fewest / 2, num_patients)
        found = value * (1 - value) / standard_error**2
        return Size(min(max(found, fewest / 2), 2 * largest), num_patients)

    return size_of


def of_auroc(cases: SiteCases) -> Size:
    """Of the area under the ROC curve, by the variance of Hanley and McNeil (Radiology 1982).

    In the symmetrical form of Newcombe (Stat Med 2006, part 2, method 5), which needs no spread of the few cases of one
    class. Its quotient with that of a share hardly depends on the area. The design effect is that of DeLong's variance
    (Biometrics 1988), patients as clusters (Obuchowski, Biometrics 1997).
    """
    positive_N = cases.true > 0
    score_N = cases.scores.probabilities_NK[:, -1]
    num_positive, num_negative = int(positive_N.sum()), int((~positive_N).sum())
    if not num_positive or not num_negative:
        return Size(math.nan, 0)
    above_N = np.where(
        positive_N,
        _share_below(score_N[~positive_N], score_N),
        1 - _share_below(score_N[positive_N], score_N),
    )
    area = float(above_N[positive_N].mean())
    left_N = (above_N - area) / np.where(positive_N, num_positive, num_negative)
    effect = _effect(left_N, positive_N, cases.patient_N)
    num_positive_effective, num_negative_effective = num_positive / effect, num_negative / effect
    pairs = max(0.0, (num_positive_effective + num_negative_effective) / 2 - 1)
    inflation = 1 + pairs * ((1 - area) / (2 - area) + area / (1 + area))
    return Size(num_positive_effective * num_negative_effective / inflation, cases.fewest_patients)


def of_brier(cases: SiteCases) -> Size:
    """Of a mean between 0 and 1, by its variance over patients."""
    distance_N = (cases.scores.probabilities_NK[:, -1] - cases.true) ** 2
    return of_error(*clustered_ratio(distance_N, np.ones_like(distance_N), cases.patient_N))


def of_error(value: float, standard_error: float, num_patients: int) -> Size:
    """Of a figure between 0 and 1 whose standard error so many patients tell: fewer cases, as t is wider."""
    if num_patients < 2 or not standard_error > 0 or not 0 < value < 1:
        return Size(math.nan, num_patients)
    wider = t95(num_patients - 1) / Z95
    return Size(value * (1 - value) / (wider * standard_error) ** 2, num_patients)


def _share_below(others: Floats, score_N: Floats) -> Floats:
    """Share of the others below each score, equal ones counting half."""
    ordered = np.sort(others)
    below_N = np.searchsorted(ordered, score_N, "left") + np.searchsorted(ordered, score_N, "right")
    return np.asarray(below_N / (2 * len(others)))


def _effect(left_N: Floats, positive_N: NDArray[np.bool_], patient_N: NDArray[np.int64]) -> float:
    """Design effect of a figure that holds cases of two classes against each other.

    Below 1 where a patient is in both classes: visits that score high make one class better and the other worse.

    Args:
        left_N: what each case adds to the figure, about its mean.
        positive_N: whether a case is positive.
        patient_N: number of its patient.
    """
    largest = max(_largest_effect(np.asarray(chosen, float), patient_N) for chosen in (positive_N, ~positive_N))
    if largest == 1.0 and len(np.unique(patient_N)) == len(patient_N):
        return 1.0
    over_patients = np.bincount(patient_N, left_N)
    return _within(float(over_patients @ over_patients), float(left_N @ left_N), largest, smallest=0.5)


def _largest_effect(whole_N: Floats, patient_N: NDArray[np.int64]) -> float:
    """The design effect if all cases of a patient agreed."""
    of_patients = np.bincount(patient_N, whole_N)
    return float(of_patients @ of_patients / whole_N.sum()) if whole_N.any() else 1.0


def _within(clustered: float, independent: float, largest: float, smallest: float = 1.0) -> float:
    """The quotient of two variances, between the smallest and the largest; the largest where nothing tells."""
    if not (math.isfinite(clustered) and independent > 0):
        return largest
    return min(max(clustered / independent, smallest), largest)
