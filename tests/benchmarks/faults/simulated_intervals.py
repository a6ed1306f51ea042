"""Sites whose true figures are known, to count how often an interval holds them.

Legend: N cases, P patients.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit, ndtr, ndtri
from scipy.stats import beta

from msfl_common.metrics.classification import measure, metrics_of
from msfl_common.metrics.intervals import Estimate, mean_estimate
from msfl_common.metrics.segmentation import METRICS

Floats = NDArray[np.float64]

SLOPES = (1.2, 2.5)  # of the logit on a normal score: AUROC of about .79 and .92
_LIKE = 0.5  # correlation of a patient's visits
_GRID = (np.arange(20_000) + 0.5) / 20_000


@dataclass(frozen=True, order=True)
class Cell:
    """What is simulated together.

    Attributes:
        patients: of all sites.
        sites: their number; the largest is twice the smallest.
        visits: of each patient.
        prevalence: of the outcome.
        alike: whether sites have one truth; else each draws one of two.
    """

    patients: int
    sites: int
    visits: int
    prevalence: float
    alike: bool = True

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Patients of each site."""
        weights = np.linspace(1, 2, self.sites)
        return np.maximum(2, np.round(weights / weights.sum() * self.patients)).astype(np.int64)


@lru_cache
def offset_of(prevalence: float, slope: float) -> float:
    """Intercept of the logit that gives this prevalence."""
    return float(brentq(lambda offset: expit(offset + slope * ndtri(_GRID)).mean() - prevalence, -20, 20))


@lru_cache
def true_figures(prevalence: float, slope: float) -> Mapping[str, float]:
    """Every metric of a calibrated model in half a million cases; the calibration's are 1 and 0."""
    score_N = expit(offset_of(prevalence, slope) + slope * ndtri((np.arange(500_000) + 0.5) / 500_000))
    labels_N = (np.random.default_rng(0).random(len(score_N)) < score_N).astype(np.int64)
    found = metrics_of(np.stack([1 - score_N, score_N], axis=1), labels_N, prevalence, np.ones((1, len(score_N))))
    return {name: float(value[0]) for name, value in found.items()} | {
        "calibration_slope": 1.0,
        "calibration_intercept": 0.0,
        "ece": 0.0,
        "prevalence": prevalence,
    }


def classify(cell: Cell, slope: float, num_patients: int, rng: np.random.Generator) -> dict[str, Estimate]:
    """A site's figures of an outcome model; what is undefined is left out, as sites do."""
    score_N, labels_N, patient_N = outcomes(cell, slope, num_patients, rng)
    if len(np.unique(labels_N)) < 2:
        return {}
    patients = [str(number) for number in patient_N]
    found = measure(np.stack([1 - score_N, score_N], axis=1), labels_N, patients, cell.prevalence)
    return {name: estimate for name, estimate in found.items() if estimate.num_cases}


def outcomes(
    cell: Cell, slope: float, num_patients: int, rng: np.random.Generator
) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
    """Scores, outcomes and patients of a site's cases; visits of a patient are alike in both."""
    patient_N = np.repeat(np.arange(num_patients), cell.visits)
    score_N = expit(offset_of(cell.prevalence, slope) + slope * _alike(patient_N, cell.visits, rng))
    return score_N, (ndtr(_alike(patient_N, cell.visits, rng)) < score_N).astype(np.int64), patient_N


def segment(cell: Cell, num_patients: int, rng: np.random.Generator) -> dict[str, Estimate]:
    """A site's figures of lesion masks."""
    patient_N = np.repeat(np.arange(num_patients), cell.visits)
    patients = [str(number) for number in patient_N]
    share_N = ndtr(_alike(patient_N, cell.visits, rng))
    return {
        name: mean_estimate(np.interp(share_N, _GRID, shape), patients, METRICS[name].interval_range)
        for name, shape in shapes().items()
    }


@lru_cache
def shapes() -> Mapping[str, Floats]:
    """Quantiles of each metric over cases, skewed and at their ends as real ones are."""

    def with_ends(zeros: float, ones: float, a: float, b: float) -> Floats:
        between = np.clip((_GRID - zeros) / (1 - zeros - ones), 0, 1)
        return np.where(zeros > _GRID, 0.0, np.where(1 - ones < _GRID, 1.0, beta.ppf(between, a, b)))

    return {
        "dsc": beta.ppf(_GRID, 5, 2),
        "lesion_tpr": with_ends(0.05, 0.2, 3, 1.5),
        "lesion_fpr": with_ends(0.3, 0.03, 1.5, 3),
        "lesion_f1": with_ends(0.03, 0.05, 4, 2),
        "abs_volume_difference_ml": np.exp(1.0 * ndtri(_GRID)),
        "hd95_mm": np.exp(1.6 + 0.7 * ndtri(_GRID)),
    }


def _alike(patient_N: NDArray[np.int64], visits: int, rng: np.random.Generator) -> Floats:
    """Standard normal values of which those of a patient correlate."""
    own_N = rng.normal(size=len(patient_N))
    if visits == 1:
        return own_N
    of_patients = rng.normal(size=int(patient_N[-1]) + 1)
    return np.asarray(math.sqrt(_LIKE) * of_patients[patient_N] + math.sqrt(1 - _LIKE) * own_N)


def mean_truth(truths: Sequence[float], estimates: Sequence[Estimate]) -> float:
    """The truth of a pooled figure: that of each site, by its cases."""
    return float(np.average(truths, weights=[estimate.num_cases for estimate in estimates]))


def three_classes(num_patients: int, rng: np.random.Generator) -> dict[str, Estimate]:
    """A site's figures of a calibrated model of three classes."""
    probabilities_NK, labels_N = _three(num_patients, rng)
    found = measure(probabilities_NK, labels_N, list(map(str, range(num_patients))), 0.5)
    return {name: estimate for name, estimate in found.items() if estimate.num_cases}


@lru_cache
def true_of_three() -> Mapping[str, float]:
    """Every metric of it in half a million cases."""
    probabilities_NK, labels_N = _three(500_000, np.random.default_rng(0))
    found = metrics_of(probabilities_NK, labels_N, 0.5, np.ones((1, len(labels_N))))
    return {name: float(value[0]) for name, value in found.items()}


def _three(num: int, rng: np.random.Generator) -> tuple[Floats, NDArray[np.int64]]:
    logits_NK = 1.5 * rng.normal(size=(num, 3)) + [0.5, 0, 0]
    probabilities_NK = np.exp(logits_NK)
    probabilities_NK /= probabilities_NK.sum(axis=1, keepdims=True)
    return probabilities_NK, (rng.random((num, 1)) > np.cumsum(probabilities_NK, axis=1)[:, :2]).sum(axis=1)
