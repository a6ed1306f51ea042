"""Studies, or sites, taken together: the arithmetic of meta-analysis, with the variances as known.

Legend: S studies or sites, R replicates.

What a reader is shown of it, and from how many on, is decided where it is shown (`heterogeneity` for sites,
`research.meta_analysis` for studies); `tests/benchmarks/evaluation/meta.py` measures how often each interval holds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from msfl_common.metrics.intervals import Floats, t95

_NUM_REPLICATES, _SEED, _NUM_GRID = 5_000, 0, 400


@dataclass(frozen=True)
class Mean:
    """A weighted mean over studies.

    Attributes:
        mean: the mean.
        error: its standard error, where the weights are inverse variances.
        spread_error: that of Hartung and Knapp (Stat Med 2001), of the studies' own spread, with one degree of freedom
            less than studies.
    """

    mean: float
    error: float
    spread_error: float


def weighted_mean(effects_S: Floats, variances_S: Floats, tau2: float = 0.0) -> Mean:
    """The inverse-variance mean: of the fixed effect at tau2 = 0, else of random effects."""
    weights_S = 1 / (variances_S + tau2)
    total = float(weights_S.sum())
    mean = float(weights_S @ effects_S) / total
    spread = float(weights_S @ (effects_S - mean) ** 2) / (max(1, len(effects_S) - 1) * total)
    return Mean(mean, math.sqrt(1 / total), math.sqrt(spread))


def cochran_q(effects_S: Floats, variances_S: Floats) -> float:
    """Cochran's Q (Biometrics 1954)."""
    mean = weighted_mean(effects_S, variances_S).mean
    return float(((effects_S - mean) ** 2 / variances_S).sum())


def i_squared(q: float, freedom: int) -> float:
    """Share of the variation that chance does not explain, 0 to 1 (Higgins and Thompson, Stat Med 2002)."""
    return max(0.0, (q - freedom) / q) if q > 0 else 0.0


def tau2_by_moments(q: float, variances_S: Floats) -> float:
    """Variance between studies, of Q (DerSimonian and Laird, Control Clin Trials 1986)."""
    weights_S = 1 / variances_S
    scale = weights_S @ (1 - weights_S / weights_S.sum())
    return max(0.0, (q - (len(variances_S) - 1)) / float(scale))


def tau2_by_likelihood(effects_S: Floats, variances_S: Floats) -> float:
    """Variance between studies at the greatest restricted likelihood (REML; Harville, J Am Stat Assoc 1977).

    Found on a grid first, then between the best point's neighbours: the likelihood may have two tops.
    """
    from scipy.optimize import minimize_scalar  # heavy, and not needed to read a summary

    top = float(np.ptp(effects_S)) ** 2
    if not top > 0:
        return 0.0

    def loss(tau2: float) -> float:
        return -restricted_likelihood(effects_S, variances_S, tau2)

    grid = np.concatenate([[0.0], top * np.logspace(-8, 0, 60)])
    best = int(np.argmin([loss(float(tau2)) for tau2 in grid]))
    low, high = float(grid[max(0, best - 1)]), float(grid[min(len(grid) - 1, best + 1)])
    found = float(minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-10 * high}).x)
    return found if loss(found) < loss(float(grid[best])) else float(grid[best])


def restricted_likelihood(effects_S: Floats, variances_S: Floats, tau2: float) -> float:
    """Logarithm of the restricted likelihood, but for a constant."""
    weights_S = 1 / (variances_S + tau2)
    total = weights_S.sum()
    mean = float(weights_S @ effects_S / total)
    return 0.5 * float(np.log(weights_S).sum() - np.log(total) - weights_S @ (effects_S - mean) ** 2)


def prediction_by_t(effects_S: Floats, variances_S: Floats, tau2: float) -> tuple[float, float]:
    """95% prediction interval of a further study's true value (Higgins, Thompson and Spiegelhalter, JRSS A 2009).

    Student's t with two degrees of freedom less than studies; where tau2 is estimated as 0, it is too narrow.
    """
    mean = weighted_mean(effects_S, variances_S, tau2)
    margin = t95(len(effects_S) - 2) * math.hypot(math.sqrt(tau2), mean.error)
    return mean.mean - margin, mean.mean + margin


def prediction_by_draws(effects_S: Floats, variances_S: Floats, tau2: float) -> tuple[float, float]:
    """95% prediction interval of a further study's true value that counts with how little is known of tau2.

    Of Nagashima, Noma and Furukawa (Stat Methods Med Res 2019): tau2 is drawn from its confidence distribution, the
    mean about that of `tau2` by Hartung and Knapp's error, the study's value about it. The distribution is that of the
    generalised Q (Viechtbauer, Stat Med 2007), which falls as tau2 grows and is chi-squared at the true one.
    """
    rng = np.random.default_rng(_SEED)
    freedom = len(effects_S) - 1
    tau2_R = _tau2_of(effects_S, variances_S, rng.chisquare(freedom, _NUM_REPLICATES))
    weights_RS = 1 / (variances_S + tau2_R[:, None])
    draws_R = weights_RS @ effects_S / weights_RS.sum(axis=1) + rng.normal(size=_NUM_REPLICATES) * np.sqrt(tau2_R)
    error = weighted_mean(effects_S, variances_S, tau2).spread_error
    low, high = np.quantile(draws_R - error * rng.standard_t(freedom, _NUM_REPLICATES), [0.025, 0.975])
    return float(low), float(high)


def _tau2_of(effects_S: Floats, variances_S: Floats, q_R: Floats) -> Floats:
    """The tau2 at which the generalised Q is each of `q_R`, between points of a grid; 0 where it is less at 0."""
    least, most = float(variances_S.min()), float(np.ptp(effects_S)) ** 2 * len(effects_S) / float(q_R.min())
    if not most > 0:
        return np.zeros_like(q_R)
    grid = np.concatenate([[0.0], np.geomspace(min(1e-4 * least, 0.1 * most), most, _NUM_GRID)])
    q_of_grid = [cochran_q(effects_S, variances_S + tau2) for tau2 in grid]
    return np.asarray(np.interp(q_R, q_of_grid[::-1], grid[::-1]))
