"""A metric at the sites and over all of them, as a summary tells it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from msfl_common.config.base import Name
from msfl_common.metrics.intervals import Estimate, pool
from msfl_common.metrics.metric import Metric
from msfl_common.metrics.registry import ALL_METRICS
from msfl_common.metrics.regression import together
from msfl_common.secure_aggregation.layout import POOLED
from msfl_server.results.between_sites import BetweenSites

_BEHIND = "patients behind it, of the smallest group (as a class) that it rests on; absent where sites did not tell"


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class SiteMetric(_Frozen):
    """A metric at one site."""

    mean: float = Field(description="mean over the site's cases, in the metric's unit")
    ci95_low: float | None = Field(description="low end of the 95% interval; null where patients are too few for one")
    ci95_high: float | None = Field(description="high end of the 95% interval; null where patients are too few for one")
    num_cases: int = Field(ge=1, description="cases where the metric is defined")
    num_patients: int | None = Field(None, ge=0, description=_BEHIND, exclude_if=lambda value: value is None)
    standard_error: float | None = Field(
        None,
        ge=0,
        description="of the mean, of a share at the middle of its interval; null where it cannot be estimated",
        exclude_if=lambda value: value is None,
    )


class MetricSummary(_Frozen):
    """A metric over all sites."""

    mean: float = Field(description="mean over all sites' cases, in the metric's unit")
    ci95_low: float | None = Field(description="low end of the 95% interval; null where patients are too few for one")
    ci95_high: float | None = Field(description="high end of the 95% interval; null where patients are too few for one")
    num_patients: int | None = Field(None, ge=0, description=_BEHIND, exclude_if=lambda value: value is None)
    per_site: dict[Name, SiteMetric] = Field(description="the same, site by site; empty under masks")
    pooled_cases: int | None = Field(
        None,
        ge=1,
        description="under masks: all sites' cases where the metric is defined",
        exclude_if=lambda value: value is None,
    )
    pooled_sites: int | None = Field(
        None,
        ge=1,
        description="under masks: how many sites told the metric",
        exclude_if=lambda value: value is None,
    )
    between_sites: BetweenSites | None = Field(
        None,
        description="the sites compared, of a metric that a reader looks for first; absent with fewer than two, under "
        "masks, and in runs of earlier versions",
        exclude_if=lambda value: value is None,
    )

    @property
    def num_cases(self) -> int:
        """All sites' cases where it is defined."""
        return self.pooled_cases or sum(site.num_cases for site in self.per_site.values())

    @property
    def num_sites(self) -> int:
        """How many sites told it."""
        return self.pooled_sites or len(self.per_site)


def summarise_metric(
    name: str, estimates: Mapping[str, Estimate], moments_M: NDArray[np.float64] | None = None
) -> MetricSummary | None:
    """Pool a metric over sites, with the intervals that are known to hold the truth 93 to 97 times in 100.

    Args:
        name: a name in `ALL_METRICS`.
        estimates: site name to the site's estimate.
        moments_M: of a regression, of all sites; see `metrics.regression`.

    Returns:
        The summary, or None when the metric is undefined in every case.
    """
    metric = ALL_METRICS[name]
    pooled = pool(estimates, metric.spread, metric.interval_range)
    if moments_M is not None:
        pooled = together(pooled, metric, moments_M)
    if not pooled.num_cases:
        return None
    told = {site: estimate for site, estimate in sorted(estimates.items()) if estimate.num_cases}
    per_site = {
        site: SiteMetric(
            **_shown(metric, estimate, has_enough(metric, estimate.num_patients)),
            num_cases=estimate.num_cases,
            standard_error=_defined(estimate.standard_error),
        )
        for site, estimate in told.items()
        if site != POOLED
    }
    if POOLED in told:
        shown = _shown(metric, pooled, has_enough(metric, pooled.num_patients))
        return MetricSummary(**shown, per_site={}, pooled_cases=pooled.num_cases, pooled_sites=pooled.num_sites)
    behind = [estimate.num_patients for estimate in told.values() if estimate.num_patients is not None]
    enough_each = min(behind, default=0) >= metric.fewest_each * len(told) or len(behind) < len(told)
    return MetricSummary(
        **_shown(metric, pooled, has_enough(metric, pooled.num_patients) and enough_each), per_site=per_site
    )


def has_enough(metric: Metric, num_patients: int | None) -> bool:
    """Whether an interval of so many patients may be shown; where an earlier version did not tell them, it is."""
    return metric.spread != "none" and (num_patients is None or num_patients >= metric.fewest)


def _shown(metric: Metric, estimate: Estimate, has_interval: bool) -> dict[str, Any]:
    """A figure with its interval, where it may be shown."""
    ends = (estimate.ci95_low, estimate.ci95_high)
    low, high = ends if has_interval and all(map(math.isfinite, ends)) else (None, None)
    return {
        "mean": max(estimate.mean, metric.shown_from),
        "ci95_low": None if low is None else max(low, metric.lower),
        "ci95_high": None if high is None else min(high, metric.upper),
        "num_patients": estimate.num_patients,
    }


def _defined(value: float) -> float | None:
    return value if math.isfinite(value) else None
