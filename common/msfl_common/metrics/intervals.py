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
        num_sites: sites behind it, where it is of several.
    """

    mean: float
    num_cases: int
    standard_error: float
    ci95_low: float
    ci95_high: float
    num_patients: int | None = None
    num_sites: int | None = None


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
    return shifted(mean, -margin, bounds), shifted(mean, margin, bounds)


def shifted(mean: float, step: float, bounds: Bounds) -> float:
    """Where a mean between its bounds comes to when it moves by so much on the scale of `mean_interval`."""
    low, high = bounds
    end, ends = mean + step, (min, max)[step > 0]
    if math.isfinite(low) and math.isfinite(high):
        change = step * (high - low) / ((mean - low) * (high - mean))
        odds = (mean - low) / (high - mean) * math.exp(min(max(change, -700), 700))
        end = low + (high - low) * odds / (1 + odds) if step < 0 else high - (high - low) / (1 + odds)
    elif math.isfinite(low):
        end = low + (mean - low) * math.exp(min(max(step / (mean - low), -700), 700))
    return ends(end, mean)  # of values that differ by rounding, the end would too


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
    if len(sites) == 1 and sites[0].num_sites is not None:
        return sites[0]  # is of several sites already
    columns = zip(*(pooling_sums(site, spread) for site in sites), strict=True)
    return from_pooling_sums([math.fsum(column) for column in columns] or [0.0] * NUM_POOLED, spread, bounds)


NUM_POOLED = 11


def pooling_sums(estimate: Estimate, spread: Spread) -> tuple[float, ...]:
    """What of a site's estimate adds up over sites to all that `pool` needs, `NUM_POOLED` numbers.

    Of a site with a standard error: one, the variance of its sum, that a case, and its square by degrees of freedom; of
    one without: cases, and their square by degrees of freedom. Of a share, the variance is in that of one case.
    """
    num = estimate.num_cases
    if not num:
        return (0.0,) * NUM_POOLED
    per_case = num / effective_number(estimate) if spread == "share" else estimate.standard_error**2 * num
    freedom = freedom_of(estimate)
    behind = (0.0, 0.0) if estimate.num_patients is None else (1.0, float(estimate.num_patients))
    mean = (1.0, float(num), num * estimate.mean, *behind)
    if not math.isfinite(per_case):
        return (*mean, 0.0, 0.0, 0.0, 0.0, float(num), num * num / freedom)
    return (*mean, 1.0, num * per_case, per_case, (num * per_case) ** 2 / freedom, 0.0, 0.0)


def from_pooling_sums(sums: Sequence[float], spread: Spread, bounds: Bounds) -> Estimate:
    """What `pooling_sums` of all sites come to; see `pool`."""
    num_sites, num, total, num_telling, patients, num_known, known, per_case, square, unknown, unknown_square = sums
    if not num:
        return Estimate(math.nan, 0, math.nan, math.nan, math.nan, 0)
    mean, num_cases, variance, spread_of_it = total / num, int(num), known, square
    if unknown:
        lonely = per_case / num_known if num_known else math.nan
        variance, spread_of_it = known + unknown * lonely, square + unknown_square * lonely**2
    behind = int(patients) if num_telling == num_sites else None
    if spread == "share":
        effective = num**2 / variance if variance > 0 else math.nan
        pooled = share_estimate(min(max(mean, 0.0), 1.0), num_cases, effective, 0)
        return replace(pooled, mean=mean, num_patients=behind, num_sites=int(num_sites))
    standard_error = math.sqrt(variance) / num
    freedom = variance**2 / spread_of_it if spread == "mean" and spread_of_it > 0 else math.inf
    ends = mean_interval(mean, standard_error, freedom, bounds)
    return Estimate(mean, num_cases, standard_error, *ends, behind, int(num_sites))


def freedom_of(estimate: Estimate) -> float:
    """Degrees of freedom of a mean's standard error; infinite where the patients were not told."""
    return math.inf if not estimate.num_patients else max(1.0, estimate.num_patients - 1.0)
