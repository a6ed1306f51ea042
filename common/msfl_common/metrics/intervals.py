"""Means and shares with 95% intervals, inside a site and over sites; `heterogeneity` compares sites.

Legend: N cases, P patients, S sites.

A site sends six numbers per metric (`Estimate`) and nothing else, all of them functions of the figure, its standard
error and the number of patients: no end of an interval is a patient's value. Sites draw their patients independently,
so variances add. `tests/benchmarks/faults/coverage.py` measures how often each interval holds the truth; where that is
not 93 to 97%, `Metric.fewest` keeps it from being shown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from msfl_common.metrics.metric import Spread

Floats = NDArray[np.float64]
Bounds = tuple[float, float]

Z95 = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class Estimate:
    """A figure over cases, with its 95% interval.

    Attributes:
        mean: mean over cases, or another figure of them; NaN without a case.
        num_cases: cases with a defined value.
        standard_error: of the mean; of a share, at the middle of its interval, where it is not 0; NaN where it cannot
            be estimated.
        ci95_low: lower end of the 95% interval; NaN with the standard error.
        ci95_high: upper end of the 95% interval; NaN with the standard error.
        num_patients: patients behind it, of the smallest group that it rests on; None where a site of an earlier
            version did not tell.
    """

    mean: float
    num_cases: int
    standard_error: float
    ci95_low: float
    ci95_high: float
    num_patients: int | None = None


def t95(freedom: float) -> float:
    """The 97.5% quantile of Student's t."""
    from scipy.special import stdtrit  # heavy, and not needed to read an estimate

    return Z95 if math.isinf(freedom) else float(stdtrit(freedom, 0.975))


def wilson(share: float, num: float) -> tuple[float, float]:
    """Wilson's 95% interval of a share (J Am Stat Assoc 1927); `num` may be an effective number of cases."""
    z2 = Z95**2
    centre = (share + z2 / (2 * num)) / (1 + z2 / num)
    margin = Z95 / (1 + z2 / num) * math.sqrt(share * (1 - share) / num + z2 / (4 * num * num))
    return min(share, max(0.0, centre - margin)), max(share, min(1.0, centre + margin))


def share_estimate(share: float, num_cases: int, effective: float, num_patients: int) -> Estimate:
    """A share with Wilson's interval, of as many independent cases as tell as much as the given ones; 1 at least."""
    if not (effective > 0 and math.isfinite(effective)):
        return Estimate(share, num_cases, math.nan, math.nan, math.nan, num_patients)
    effective = max(effective, 1.0)
    low, high = wilson(share, effective)
    middle = (share + Z95**2 / (2 * effective)) / (1 + Z95**2 / effective)
    return Estimate(share, num_cases, math.sqrt(middle * (1 - middle) / effective), low, high, num_patients)


def effective_number(estimate: Estimate) -> float:
    """How many independent cases a share's standard error stands for, as `share_estimate` made it; NaN without one."""
    if not (estimate.standard_error > 0 and 0 <= estimate.mean <= 1):
        return math.nan
    low, high = 1e-3, 1e9
    for _ in range(60):  # the error falls as the number grows
        num = math.sqrt(low * high)
        middle = (estimate.mean + Z95**2 / (2 * num)) / (1 + Z95**2 / num)
        low, high = (num, high) if middle * (1 - middle) / num > estimate.standard_error**2 else (low, num)
    return math.sqrt(low * high)


def mean_interval(mean: float, standard_error: float, freedom: float, bounds: Bounds) -> tuple[float, float]:
    """Student's t interval of a mean, on the scale on which its bounds are infinitely far.

    The logit between two bounds, the logarithm above one (delta method; Lehmann and Casella, Theory of Point
    Estimation 1998, section 1.8): few values near a bound are skewed, and t is made for those that are not. There is
    none where all values are the same.
    """
    low, high = bounds
    if not standard_error > 0 or not low < mean < high:
        return math.nan, math.nan
    margin = t95(freedom) * standard_error
    if math.isfinite(low) and math.isfinite(high):
        odds, step = (mean - low) / (high - mean), margin * (high - low) / ((mean - low) * (high - mean))
        ends = [odds * math.exp(min(max(sign * step, -700), 700)) for sign in (-1, 1)]
        first, last = low + (high - low) * ends[0] / (1 + ends[0]), high - (high - low) / (1 + ends[1])
        return min(first, mean), max(last, mean)  # of values that differ by rounding, the ends would too
    if math.isfinite(low):
        step = min(margin / (mean - low), 700)
        return low + (mean - low) * math.exp(-step), low + (mean - low) * math.exp(step)
    return mean - margin, mean + margin


def mean_estimate(values: ArrayLike, patients: Sequence[str], bounds: Bounds = (-math.inf, math.inf)) -> Estimate:
    """Mean over cases with a 95% interval, patients as clusters.

    Scans of one patient resemble each other, so patients count: the variance is that of patients' sums about the mean
    (linearised, with P / (P - 1); Cochran, Sampling Techniques 1977, section 10), with P - 1 degrees of freedom. NaN
    values are left out; a patient with nothing else is not counted.

    Args:
        values: N values of a metric, one a case.
        patients: N patient names, one a case.
        bounds: smallest and largest value possible.

    Raises:
        ValueError: not one patient per value.
    """
    values_N = np.asarray(values, dtype=np.float64)
    if values_N.shape != (len(patients),):
        raise ValueError(f"expected one patient per value, found {len(patients)} for {values_N.shape}")
    defined_N = np.isfinite(values_N)
    _, patient_N = np.unique(np.asarray(patients, dtype=np.str_)[defined_N], return_inverse=True)
    mean, standard_error, num_patients = clustered_ratio(values_N[defined_N], np.ones(defined_N.sum()), patient_N)
    freedom = max(1, num_patients - 1)
    return with_interval(mean, int(defined_N.sum()), standard_error, freedom, bounds, num_patients)


def with_interval(
    mean: float, num_cases: int, standard_error: float, freedom: float, bounds: Bounds, num_patients: int
) -> Estimate:
    """An estimate with `mean_interval`; where that is none, the standard error says nothing either."""
    low, high = mean_interval(mean, standard_error, freedom, bounds)
    error = standard_error if math.isfinite(low) and math.isfinite(high) else math.nan
    return Estimate(mean, num_cases, error, low, high, num_patients)


def clustered_ratio(part_N: Floats, whole_N: Floats, patient_N: NDArray[np.int64]) -> tuple[float, float, int]:
    """A ratio of sums with its standard error over patients, and the patients that are in the whole.

    Args:
        part_N: what is summed above.
        whole_N: what is summed below; not negative.
        patient_N: number of each case's patient.
    """
    whole_P = np.bincount(patient_N, whole_N)
    num_patients, whole = int(np.count_nonzero(whole_P)), float(whole_N.sum())
    if not num_patients:
        return math.nan, math.nan, 0
    ratio = float(part_N.sum() / whole)
    if num_patients < 2:
        return ratio, math.nan, num_patients
    left_P = np.bincount(patient_N, part_N - ratio * whole_N)
    variance = num_patients / (num_patients - 1) * float(left_P @ left_P)
    return ratio, math.sqrt(variance) / whole, num_patients


def num_patients_of(values: ArrayLike, patients: Sequence[str]) -> int:
    """Patients with a defined value."""
    return len({patient for patient, value in zip(patients, np.asarray(values), strict=True) if math.isfinite(value)})


def pool(
    estimates: Mapping[str, Estimate], spread: Spread = "mean", bounds: Bounds = (-math.inf, math.inf)
) -> Estimate:
    """Mean over all cases of all sites, with a site-stratified 95% interval.

    The sites are the strata: the interval says how the mean would vary with other patients at these sites, not with
    other sites. Of means it is `mean_interval`, with Satterthwaite's degrees of freedom (Biometrics Bulletin 1946). Of
    shares it is Wilson's, of the effective number of cases that follows from the sites' if their shares are alike;
    where they differ, it is too wide. A site without a standard error gets the case variance of the others (the
    "average" rule of survey statistics for a lonely stratum).

    Args:
        estimates: site name to estimate; sites without a case count for nothing.
        spread: how the metric spreads.
        bounds: its smallest and largest value.

    Returns:
        The estimate; NaN where no site has a case, or none a standard error.
    """
    sites = [estimate for estimate in estimates.values() if estimate.num_cases > 0]
    num_cases = sum(site.num_cases for site in sites)
    if not num_cases:
        return Estimate(math.nan, 0, math.nan, math.nan, math.nan, 0)
    counts_S = np.array([site.num_cases for site in sites], dtype=np.float64)
    weights_S = counts_S / num_cases
    mean = float(weights_S @ np.array([site.mean for site in sites]))
    behind = [site.num_patients for site in sites if site.num_patients is not None]
    num_patients = sum(behind) if len(behind) == len(sites) else None
    if spread == "share":
        per_case_S = _completed(counts_S / np.array([effective_number(site) for site in sites]))
        inverse = float(weights_S**2 @ (per_case_S / counts_S))
        pooled = share_estimate(min(max(mean, 0.0), 1.0), num_cases, 1 / inverse if inverse > 0 else math.nan, 0)
        return replace(pooled, mean=mean, num_patients=num_patients)
    parts_S = weights_S**2 * _completed(np.array([site.standard_error for site in sites]) ** 2 * counts_S) / counts_S
    standard_error = math.sqrt(float(parts_S.sum()))
    freedom = _freedom(parts_S, sites) if spread == "mean" else math.inf
    return Estimate(
        mean, num_cases, standard_error, *mean_interval(mean, standard_error, freedom, bounds), num_patients
    )


def freedom_of(estimate: Estimate) -> float:
    """Degrees of freedom of a mean's standard error; infinite where the patients were not told."""
    return math.inf if not estimate.num_patients else max(1.0, estimate.num_patients - 1.0)


def _freedom(parts_S: Floats, sites: Sequence[Estimate]) -> float:
    """Satterthwaite's degrees of freedom of a sum of variances."""
    spread = float((parts_S**2 / np.array([freedom_of(site) for site in sites])).sum())
    return float(parts_S.sum()) ** 2 / spread if spread > 0 else math.inf


def _completed(variances_S: Floats) -> Floats:
    """Variances per case, unknown ones at the mean of the others; NaN where none is known."""
    known_S = np.isfinite(variances_S)
    return np.where(known_S, variances_S, variances_S[known_S].mean() if known_S.any() else math.nan)
