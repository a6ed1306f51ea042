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
    shifted,
    t95,
)
from msfl_common.metrics.metric import Spread
from msfl_common.metrics.random_effects import (
    cochran_q,
    i_squared,
    prediction_by_draws,
    tau2_by_likelihood,
    tau2_by_moments,
    weighted_mean,
)

_NUM_REPLICATES, _SEED = 20_000, 0
_NO_SPREAD = 1e-9  # a standard error up to it is the rounding of cases that are all the same
_NO_WEIGHT = 1e9  # one from it on is of no metric
_ALONE = 1e-6  # one that is less of the sites' median would take all weight


@dataclass(frozen=True)
class RandomEffects:
    """A mean over sites that truly differ, and how much they do.

    Attributes:
        tau2: variance of the true values between sites, squared unit of the metric.
        mean, low, high: the mean and its 95% interval.
    """

    tau2: float
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class MetaAnalysis:
    """Sites compared with each other; see `meta_analysis`.

    Attributes:
        num_sites: sites with a usable standard error.
        fixed, fixed_low, fixed_high: mean and 95% interval where there is one true value at all sites.
        random: where sites truly differ, by tau2 of DerSimonian and Laird.
        likelihood: the same, by tau2 of restricted maximum likelihood (REML).
        i2: share of the variation between site means that chance does not explain, 0 to 1.
        q: Cochran's Q, brought to the scale of chi-squared with num_sites - 1 degrees of freedom.
        p: how often sites that do not differ have so large a Q.
    """

    num_sites: int
    fixed: float
    fixed_low: float
    fixed_high: float
    random: RandomEffects
    likelihood: RandomEffects
    i2: float
    q: float
    p: float


@dataclass(frozen=True)
class _Sites:
    """The usable sites: means, variances of their own and as if a patient of each varied as much, and patients."""

    names: tuple[str, ...]
    means_S: Floats
    own_S: Floats
    alike_S: Floats
    freedom_S: Floats
    bounds: Bounds


def meta_analysis(
    estimates: Mapping[str, Estimate], spread: Spread = "mean", bounds: Bounds = (-math.inf, math.inf)
) -> MetaAnalysis | None:
    """Do sites differ by more than chance, and what is the mean over sites such as these?

    Q, tau2 and I2 after Cochran, DerSimonian and Laird (Control Clin Trials 1986) and Higgins and Thompson (Stat Med
    2002). Chi-squared takes the sites' variances as known; of few patients they are estimates, and Q is too large. So Q
    of means is divided by its 95% quantile among simulated sites that do not differ, with as many patients and the same
    standard errors (the parametric bootstrap of Krishnamoorthy, Lu and Mathew, Comput Stat Data Anal 2007), and
    multiplied by that of chi-squared. Means over sites weigh them by variances that are theirs in number of patients
    alone, as their own would favour sites whose few patients are alike by chance. The random-effects interval is that
    of Hartung and Knapp (Stat Med 2001): Student's t with one degree of freedom less than sites. All intervals are on
    the scale on which the metric's bounds are infinitely far (`intervals.mean_interval`).

    Args:
        estimates: site name to estimate. A site whose standard error is unknown, 0 but for rounding (every case the
            same), or nothing beside that of others, is left out: its weight is not defined, or would be all there is.
        spread: how the metric spreads.
        bounds: its smallest and largest value.

    Returns:
        The analysis, or None with fewer than two usable sites.
    """
    sites = _sites(estimates, spread, bounds)
    if len(sites.names) < 2:
        return None
    return _analyse(sites, _quantile_by_chance(sites))


def prediction_interval(
    estimates: Mapping[str, Estimate], spread: Spread = "mean", bounds: Bounds = (-math.inf, math.inf)
) -> tuple[float, float] | None:
    """Where the true value of a further such site lies, 95 times in 100: `random_effects.prediction_by_draws`.

    On the scale of `meta_analysis`, whose arguments it has; None with fewer than three usable sites.
    """
    sites = _sites(estimates, spread, bounds)
    if len(sites.names) < 3:
        return None
    middle = _random(sites, tau2_by_moments(_q(sites, _quantile_by_chance(sites)), sites.own_S))
    low, high = prediction_by_draws(sites.means_S, sites.alike_S, middle.tau2)
    if bounds[0] < middle.mean < bounds[1]:
        low, high = (shifted(middle.mean, end - middle.mean, bounds) for end in (low, high))
    return low, high


def leave_one_out(
    estimates: Mapping[str, Estimate], spread: Spread = "mean", bounds: Bounds = (-math.inf, math.inf)
) -> dict[str, MetaAnalysis]:
    """`meta_analysis` without each usable site in turn; empty with fewer than three."""
    sites = _sites(estimates, spread, bounds)
    if len(sites.names) < 3:
        return {}
    quantile_of = _quantiles_without_each(sites)
    others = [{name: estimates[name] for name in sites.names if name != left} for left in sites.names]
    return {
        left: _analyse(_of(told, spread, bounds), quantile)
        for left, told, quantile in zip(sites.names, others, quantile_of, strict=True)
    }


def _q(sites: _Sites, quantile: float | None) -> float:
    from scipy.special import chdtri  # heavy, and not needed to read a summary

    scale = 1.0 if quantile is None else float(chdtri(len(sites.names) - 1, 0.05)) / quantile
    return scale * cochran_q(sites.means_S, sites.own_S)


def _analyse(sites: _Sites, quantile: float | None) -> MetaAnalysis:
    from scipy.special import chdtrc

    q, freedom = _q(sites, quantile), len(sites.names) - 1
    fixed = weighted_mean(sites.means_S, sites.alike_S)
    low, high = _interval(fixed.mean, fixed.error, float(sites.freedom_S.sum()), sites.bounds)
    return MetaAnalysis(
        num_sites=len(sites.names),
        fixed=fixed.mean,
        fixed_low=low,
        fixed_high=high,
        random=_random(sites, tau2_by_moments(q, sites.own_S)),
        likelihood=_random(sites, tau2_by_likelihood(sites.means_S, sites.alike_S)),
        i2=i_squared(q, freedom),
        q=q,
        p=float(chdtrc(freedom, q)),
    )


def _random(sites: _Sites, tau2: float) -> RandomEffects:
    found = weighted_mean(sites.means_S, sites.alike_S, tau2)
    return RandomEffects(
        tau2, found.mean, *_interval(found.mean, found.spread_error, len(sites.names) - 1, sites.bounds)
    )


def _interval(mean: float, error: float, freedom: float, bounds: Bounds) -> tuple[float, float]:
    low, high = mean_interval(mean, error, freedom, bounds)
    if math.isfinite(low):
        return low, high
    margin = t95(freedom) * error  # sites that are all the same, or at a bound
    return mean - margin, mean + margin


def _sites(estimates: Mapping[str, Estimate], spread: Spread, bounds: Bounds) -> _Sites:
    return _of(_usable(estimates), spread, bounds)


def _of(usable: Mapping[str, Estimate], spread: Spread, bounds: Bounds) -> _Sites:
    told = list(usable.values())
    return _Sites(
        names=tuple(usable),
        means_S=np.array([site.mean for site in told]),
        own_S=np.square(np.array([site.standard_error for site in told], dtype=np.float64)),
        alike_S=_alike(told, spread) if told else np.empty(0),
        freedom_S=np.array([math.inf if spread == "share" else freedom_of(site) for site in told], dtype=np.float64),
        bounds=bounds,
    )


def _usable(estimates: Mapping[str, Estimate]) -> dict[str, Estimate]:
    """The sites whose standard error gives them a weight."""
    found = {
        name: site
        for name, site in estimates.items()
        if _NO_SPREAD < site.standard_error < _NO_WEIGHT and math.isfinite(site.mean)
    }
    least = _ALONE * float(np.median([site.standard_error for site in found.values()])) if found else 0.0
    return {name: site for name, site in found.items() if site.standard_error > least}


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


def _quantile_by_chance(sites: _Sites) -> float | None:
    """The 95% quantile of Q where sites do not differ and their variances are estimates; None where they are known."""
    if not np.isfinite(sites.freedom_S).all():
        return None
    weights_RS, means_RS = _replicates(sites, _NUM_REPLICATES)
    common_R = (weights_RS * means_RS).sum(axis=1, keepdims=True) / weights_RS.sum(axis=1, keepdims=True)
    return float(np.quantile((weights_RS * (means_RS - common_R) ** 2).sum(axis=1), 0.95))


def _quantiles_without_each(sites: _Sites) -> list[float | None]:
    """The same of all sites but one, of the same replicates for each."""
    if not np.isfinite(sites.freedom_S).all():
        return [None] * len(sites.names)
    weights_RS, means_RS = _replicates(sites, _NUM_REPLICATES // 4)
    weight_RS, sum_RS, squares_RS = (_of_others(weights_RS * means_RS**power) for power in (0, 1, 2))
    quantiles: list[float | None] = np.quantile(squares_RS - sum_RS**2 / weight_RS, 0.95, axis=0).tolist()
    return quantiles


def _replicates(sites: _Sites, num: int) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(_SEED)
    means_RS = rng.normal(0, np.sqrt(sites.own_S), (num, len(sites.names)))
    return sites.freedom_S / (sites.own_S * rng.chisquare(sites.freedom_S, means_RS.shape)), means_RS


def _of_others(values_RS: Floats) -> Floats:
    """The sum of all other columns, without a difference, in which a large one would swallow the rest."""
    none_R = np.zeros((len(values_RS), 1))
    before_RS = np.hstack([none_R, values_RS[:, :-1].cumsum(axis=1)])
    after_RS = np.hstack([values_RS[:, :0:-1].cumsum(axis=1)[:, ::-1], none_R])
    return np.add(before_RS, after_RS)
