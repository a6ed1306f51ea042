"""Means with honest intervals: inside a site, over sites, and between sites.

Legend: N cases, P patients, R bootstrap replicates, S sites.

A site sends five numbers per metric (`Estimate`) and nothing else. A per-case value belongs to one patient,
and bootstrap replicates would let the coordinator solve for the per-case values behind them, so both stay at
the site. Nothing is lost for the interval of the pooled mean: sites draw their patients independently, so the
variance of the case-weighted sum of site means is exactly the sum of the sites' variances, each times its
squared weight.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

_Z95 = NormalDist().inv_cdf(0.975)
_CHUNK_VALUES = 2**21  # of resamples times patients that are drawn at once: 16 MB an array


@dataclass(frozen=True)
class Estimate:
    """A mean over cases, with its 95% interval.

    Attributes:
        mean: mean over cases; NaN without a case.
        num_cases: cases with a defined value.
        standard_error: of the mean; NaN where it cannot be estimated (fewer than two patients).
        ci95_low: lower end of the 95% interval; NaN with the standard error.
        ci95_high: upper end of the 95% interval; NaN with the standard error.
    """

    mean: float
    num_cases: int
    standard_error: float
    ci95_low: float
    ci95_high: float


@dataclass(frozen=True)
class MetaAnalysis:
    """Sites compared with each other; see `meta_analysis`.

    Attributes:
        num_sites: sites with a usable standard error.
        fixed, fixed_low, fixed_high: inverse-variance mean and 95% interval: one true value at all sites.
        random, random_low, random_high: DerSimonian-Laird mean and 95% interval: sites truly differ.
        tau2: variance of the true values between sites, squared unit of the metric.
        i2: share of the variation between site means that chance does not explain, 0 to 1.
        q: Cochran's Q, chi-squared with num_sites - 1 degrees of freedom when sites do not differ.
    """

    num_sites: int
    fixed: float
    fixed_low: float
    fixed_high: float
    random: float
    random_low: float
    random_high: float
    tau2: float
    i2: float
    q: float


def bootstrap_mean(
    values: ArrayLike,
    patients: Sequence[str],
    num_samples: int,
    rng: np.random.Generator,
    min_patients: int = 1,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Estimate:
    """Mean over cases with a patient-clustered percentile bootstrap.

    Patients, not cases, are drawn with replacement, because scans of one patient resemble each other. NaN
    values are left out; a patient with nothing else is not drawn. The replicates' standard deviation is
    multiplied by sqrt(P / (P - 1)), which undoes the bootstrap's known bias in small samples; the percentile
    interval is left as it is and is somewhat narrow below ten patients (Hesterberg, Am Stat 2015). Among few patients
    the draws at its ends are of fewer still, of three often of one; see `interval`.

    Args:
        values: N values of a metric, one a case.
        patients: N patient names, one a case.
        num_samples: R, at least 2.
        rng: source of the draws.
        min_patients: fewest patients that an end of the interval may be of.
        bounds: smallest and largest value possible.

    Raises:
        ValueError: not one patient per value.
    """
    values_N = np.asarray(values, dtype=np.float64)
    if values_N.shape != (len(patients),):
        raise ValueError(f"expected one patient per value, found {len(patients)} for {values_N.shape}")
    sums_P, counts_P = _per_patient(values_N, patients)
    num_patients, num_cases = len(sums_P), int(counts_P.sum())
    mean = float(sums_P.sum() / num_cases) if num_cases else math.nan
    if num_patients < 2:
        return Estimate(mean, num_cases, math.nan, math.nan, math.nan)
    means, patients, share_P = [], [], np.full(num_patients, 1 / num_patients)
    for start in range(0, num_samples, per_chunk := max(1, _CHUNK_VALUES // num_patients)):
        draws_RP = rng.multinomial(num_patients, share_P, size=min(per_chunk, num_samples - start))
        means.append((draws_RP @ sums_P) / (draws_RP @ counts_P))
        patients.append((draws_RP > 0).sum(axis=1))
    means_R = np.concatenate(means)
    standard_error = float(means_R.std(ddof=1) * math.sqrt(num_patients / (num_patients - 1)))
    low, high = interval(means_R, np.concatenate(patients), min_patients, mean, standard_error, bounds)
    return Estimate(mean, num_cases, standard_error, low, high)


def interval(
    values_R: NDArray[np.float64],
    patients_R: NDArray[np.int64],
    min_patients: int,
    value: float,
    standard_error: float,
    bounds: tuple[float, float],
) -> tuple[float, float]:
    """The 95% interval of resamples: their percentiles or, where those are of too few patients, a normal one.

    Args:
        values_R: a figure in each resample.
        patients_R: different patients in each.
        min_patients: fewest of them in the resamples between which an end lies.
        value: the figure itself.
        standard_error: of it, from all resamples.
        bounds: smallest and largest value possible, which end a normal interval.
    """
    low, high = (float(end) for end in np.percentile(values_R, [2.5, 97.5]))
    for share in (0.025, 0.975):
        around = [np.quantile(values_R, share, method=method) for method in ("lower", "higher")]
        if patients_R[(values_R >= around[0]) & (values_R <= around[1])].min() < min_patients:
            margin = _Z95 * standard_error
            return max(bounds[0], value - margin), min(bounds[1], value + margin)
    return low, high


def num_patients_of(values: ArrayLike, patients: Sequence[str]) -> int:
    """Patients with a defined value."""
    return len({patient for patient, value in zip(patients, np.asarray(values), strict=True) if math.isfinite(value)})


def pool(estimates: Mapping[str, Estimate]) -> Estimate:
    """Mean over all cases of all sites, with a site-stratified 95% interval.

    The sites are the strata: the interval says how the mean would vary with other patients at these sites,
    not with other sites (`meta_analysis` does). A site of one patient has no standard error of its own and
    gets the case variance of the others (the "average" rule of survey statistics for a lonely stratum). The
    caller clips the interval to the metric's bounds.

    Args:
        estimates: site name to estimate; sites without a case count for nothing.

    Returns:
        The estimate; NaN where no site has a case, or none a standard error.
    """
    sites = [estimate for estimate in estimates.values() if estimate.num_cases > 0]
    num_cases = sum(site.num_cases for site in sites)
    if not num_cases:
        return Estimate(math.nan, 0, math.nan, math.nan, math.nan)
    counts_S = np.array([site.num_cases for site in sites], dtype=np.float64)
    means_S = np.array([site.mean for site in sites])
    variances_S = np.array([site.standard_error for site in sites]) ** 2
    known_S = np.isfinite(variances_S)
    if known_S.any():
        case_variance = float(np.mean(variances_S[known_S] * counts_S[known_S]))
        variances_S = np.where(known_S, variances_S, case_variance / counts_S)
    weights_S = counts_S / num_cases
    mean = float(weights_S @ means_S)
    standard_error = math.sqrt(float(weights_S**2 @ variances_S))
    margin = _Z95 * standard_error
    return Estimate(mean, num_cases, standard_error, mean - margin, mean + margin)


def meta_analysis(estimates: Mapping[str, Estimate]) -> MetaAnalysis | None:
    """Do sites differ by more than chance, and what would a further site see?

    Fixed effect by inverse variance; random effects, tau2, I2 and Q after DerSimonian and Laird (Control Clin
    Trials 1986) and Higgins and Thompson (Stat Med 2002).

    Args:
        estimates: site name to estimate. A site whose standard error is unknown or 0 (every case the same)
            is left out: its weight is not defined.

    Returns:
        The analysis, or None with fewer than two usable sites.
    """
    usable = [e for e in estimates.values() if math.isfinite(e.standard_error) and e.standard_error > 0]
    if len(usable) < 2:
        return None
    means_S = np.array([site.mean for site in usable])
    variances_S = np.array([site.standard_error for site in usable]) ** 2
    weights_S = 1 / variances_S
    fixed, fixed_margin = _weighted_mean(means_S, weights_S)
    q = float(weights_S @ (means_S - fixed) ** 2)
    freedom = len(usable) - 1
    scale = weights_S.sum() - (weights_S**2).sum() / weights_S.sum()
    tau2 = max(0.0, (q - freedom) / float(scale))
    random, random_margin = _weighted_mean(means_S, 1 / (variances_S + tau2))
    return MetaAnalysis(
        num_sites=len(usable),
        fixed=fixed,
        fixed_low=fixed - fixed_margin,
        fixed_high=fixed + fixed_margin,
        random=random,
        random_low=random - random_margin,
        random_high=random + random_margin,
        tau2=tau2,
        i2=max(0.0, (q - freedom) / q) if q > 0 else 0.0,
        q=q,
    )


def _weighted_mean(means_S: NDArray[np.float64], weights_S: NDArray[np.float64]) -> tuple[float, float]:
    """Inverse-variance mean and the half width of its 95% interval."""
    return float(weights_S @ means_S / weights_S.sum()), _Z95 / math.sqrt(weights_S.sum())


def _per_patient(
    values_N: NDArray[np.float64], patients: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum and number of each patient's defined values, for patients that have one."""
    defined_N = np.isfinite(values_N)
    if not defined_N.any():
        return np.zeros(0), np.zeros(0)
    _, index = np.unique(np.asarray(patients, dtype=np.str_)[defined_N], return_inverse=True)
    sums_P = np.bincount(index, weights=values_N[defined_N]).astype(np.float64)
    return sums_P, np.bincount(index).astype(np.float64)
