"""Do sites differ by more than chance?

Legend: R simulated replicates, S sites.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from msfl_common.metrics.intervals import (
    Bounds,
    Estimate,
    Floats,
    effective_number,
    freedom_of,
    mean_interval,
    t95,
)
from msfl_common.metrics.metric import Spread

_NUM_REPLICATES, _SEED = 20_000, 0
_NO_SPREAD = 1e-9  # a standard error up to it is the rounding of cases that are all the same
_NO_WEIGHT = 1e9  # one from it on is of no metric
_ALONE = 1e-6  # one that is less of the sites' median would take all weight


@dataclass(frozen=True)
class MetaAnalysis:
    """Sites compared with each other; see `meta_analysis`.

    Attributes:
        num_sites: sites with a usable standard error.
        fixed: inverse-variance mean: one true value at all sites.
        random, random_low, random_high: DerSimonian-Laird mean and its 95% interval: sites truly differ.
        tau2: variance of the true values between sites, squared unit of the metric.
        i2: share of the variation between site means that chance does not explain, 0 to 1.
        q: Cochran's Q, brought to the scale of chi-squared with num_sites - 1 degrees of freedom.
        p: how often sites that do not differ have so large a Q.
    """

    num_sites: int
    fixed: float
    random: float
    random_low: float
    random_high: float
    tau2: float
    i2: float
    q: float
    p: float


def meta_analysis(
    estimates: Mapping[str, Estimate], spread: Spread = "mean", bounds: Bounds = (-math.inf, math.inf)
) -> MetaAnalysis | None:
    """Do sites differ by more than chance, and what is the mean over sites such as these?

    Q, tau2 and I2 after Cochran, DerSimonian and Laird (Control Clin Trials 1986) and Higgins and Thompson (Stat Med
    2002). Chi-squared takes the sites' variances as known; of few patients they are estimates, and Q is too large. So Q
    of means is divided by its 95% quantile among simulated sites that do not differ, with as many patients and the same
    standard errors (the parametric bootstrap of Krishnamoorthy, Lu and Mathew, Comput Stat Data Anal 2007), and
    multiplied by that of chi-squared. The random-effects mean weighs sites by variances that are theirs in number of
    patients alone, as their own would favour sites whose few patients are alike by chance. Its interval is that of
    Hartung and Knapp (Stat Med 2001): Student's t with one degree of freedom less than sites, on the scale on which the
    metric's bounds are infinitely far (`intervals.mean_interval`).

    Args:
        estimates: site name to estimate. A site whose standard error is unknown, 0 but for rounding (every case the
            same), or nothing beside that of others, is left out: its weight is not defined, or would be all there is.
        spread: how the metric spreads.
        bounds: its smallest and largest value.

    Returns:
        The analysis, or None with fewer than two usable sites.
    """
    from scipy.special import chdtrc, chdtri  # heavy, and not needed to read a summary

    usable = _usable(estimates)
    if len(usable) < 2:
        return None
    means_S = np.array([site.mean for site in usable])
    variances_S = np.square(np.array([site.standard_error for site in usable], dtype=np.float64))
    freedom_S = np.array([math.inf if spread == "share" else freedom_of(site) for site in usable], dtype=np.float64)
    weights_S, freedom = 1 / variances_S, len(usable) - 1
    fixed = float(weights_S @ means_S / weights_S.sum())
    q = float(weights_S @ (means_S - fixed) ** 2)
    if np.isfinite(freedom_S).all():
        q *= float(chdtri(freedom, 0.05)) / _quantile_by_chance(variances_S, freedom_S)
    scale = weights_S @ (1 - weights_S / weights_S.sum())
    tau2 = max(0.0, (q - freedom) / float(scale))
    random_S = 1 / (_alike(usable, spread) + tau2)
    random = float(random_S @ means_S / random_S.sum())
    error = math.sqrt(float(random_S @ (means_S - random) ** 2) / (freedom * random_S.sum()))
    low, high = mean_interval(random, error, freedom, bounds)
    if not math.isfinite(low):  # sites that are all the same, or at a bound
        low, high = random - t95(freedom) * error, random + t95(freedom) * error
    return MetaAnalysis(
        num_sites=len(usable),
        fixed=fixed,
        random=random,
        random_low=low,
        random_high=high,
        tau2=tau2,
        i2=max(0.0, (q - freedom) / q) if q > 0 else 0.0,
        q=q,
        p=float(chdtrc(freedom, q)),
    )


def _usable(estimates: Mapping[str, Estimate]) -> list[Estimate]:
    """The sites whose standard error gives them a weight."""
    found = [e for e in estimates.values() if _NO_SPREAD < e.standard_error < _NO_WEIGHT and math.isfinite(e.mean)]
    least = _ALONE * float(np.median([site.standard_error for site in found])) if found else 0.0
    return [site for site in found if site.standard_error > least]


def _alike(sites: Sequence[Estimate], spread: Spread) -> Floats:
    """The sites' variances if a patient of each varied as much; their own where patients were not told."""
    own_S = np.square(np.array([site.standard_error for site in sites], dtype=np.float64))
    if spread == "share":
        size_S = np.array([effective_number(site) for site in sites])
        common = float(size_S @ np.array([site.mean for site in sites]) / size_S.sum())
        return np.asarray(common * (1 - common) / size_S) if 0 < common < 1 else own_S
    patients_S = np.array([site.num_patients or 0 for site in sites], dtype=np.float64)
    if not patients_S.all():
        return own_S
    freedom_S = np.array([freedom_of(site) for site in sites])
    return np.asarray(float(freedom_S @ (own_S * patients_S) / freedom_S.sum()) / patients_S)


def _quantile_by_chance(variances_S: Floats, freedom_S: Floats) -> float:
    """The 95% quantile of Q where sites do not differ and their variances are estimates."""
    rng = np.random.default_rng(_SEED)
    means_RS = rng.normal(0, np.sqrt(variances_S), (_NUM_REPLICATES, len(variances_S)))
    weights_RS = freedom_S / (variances_S * rng.chisquare(freedom_S, means_RS.shape))
    common_R = (weights_RS * means_RS).sum(axis=1, keepdims=True) / weights_RS.sum(axis=1, keepdims=True)
    return float(np.quantile((weights_RS * (means_RS - common_R) ** 2).sum(axis=1), 0.95))
