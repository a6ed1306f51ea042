"""A metric's sites compared with each other, and why they are not where they are not."""

from __future__ import annotations

import math
from collections.abc import Mapping

from msfl_common.config.base import Task
from msfl_common.metrics.heterogeneity import leave_one_out, meta_analysis, prediction_interval
from msfl_common.metrics.intervals import Z95, Estimate
from msfl_common.metrics.registry import ALL_METRICS, HEADLINE
from msfl_common.system.words import counted
from msfl_server.results.between_sites import BetweenSites, SiteMean, WithoutSite, difference_of, random_mean
from msfl_server.results.summary import MetricSummary, has_enough

FEWEST_SITES = 3  # an interval of two sites is twelve times as wide as they are apart


def compared(task: Task, metrics: Mapping[str, MetricSummary]) -> dict[str, MetricSummary]:
    """The metrics, those that a reader looks for first with what their sites come to."""
    return {
        name: metric.model_copy(update={"between_sites": between_sites(name, metric)})
        if name in HEADLINE[task]
        else metric
        for name, metric in metrics.items()
    }


def between_sites(name: str, metric: MetricSummary) -> BetweenSites | None:
    """The meta-analysis of the sites that have patients enough for an interval.

    None with fewer than two, or where all together have not. With two, Q alone. A run that is finished has it already.
    """
    if metric.between_sites is not None:
        return metric.between_sites
    estimates = _estimates(name, metric)
    facts = ALL_METRICS[name]
    how = (facts.spread, facts.interval_range)
    found = meta_analysis(estimates, *how) if metric.ci95_low is not None else None
    if found is None:
        return None
    if found.num_sites < FEWEST_SITES:
        nothing = dict.fromkeys(("fixed", "random", "likelihood", "prediction_low", "prediction_high"))
        return BetweenSites(num_sites=found.num_sites, without={}, **difference_of(found), **nothing)
    prediction = prediction_interval(estimates, *how)
    assert prediction is not None
    without = {
        site: WithoutSite(
            **difference_of(others),
            random=random_mean(others.random) if others.num_sites >= FEWEST_SITES else None,
        )
        for site, others in leave_one_out(estimates, *how).items()
    }
    return BetweenSites(
        num_sites=found.num_sites,
        **difference_of(found),
        fixed=SiteMean(mean=found.fixed, ci95_low=found.fixed_low, ci95_high=found.fixed_high),
        random=random_mean(found.random),
        likelihood=random_mean(found.likelihood),
        prediction_low=prediction[0],
        prediction_high=prediction[1],
        without=without,
    )


def why_not_pooled(name: str, metric: MetricSummary) -> str:
    """Why there is no mean over sites such as these; empty where there is one."""
    if metric.pooled_cases is not None:
        return "its sites' figures were added up under masks, and cannot be told apart"
    found = between_sites(name, metric)
    if found is not None and found.num_sites >= FEWEST_SITES:
        return ""
    told, usable = len(metric.per_site), 0 if found is None else found.num_sites
    if told < FEWEST_SITES:
        return f"{counted(told, 'site')} told it, and it takes {FEWEST_SITES}"
    if ALL_METRICS[name].spread == "none":
        return "a figure of its kind has no interval"
    at_two = f" {usable} of" if usable else " fewer than 2 of"
    return f"only{at_two} {told} sites have patients enough for an interval, and it takes {FEWEST_SITES}"


def _estimates(name: str, metric: MetricSummary) -> dict[str, Estimate]:
    """The sites with patients enough for an interval.

    Standard errors that earlier versions did not keep come from the intervals' widths: Cochrane's rule (Handbook,
    section 6.3.1), the width of a 95% interval over twice 1.96.
    """
    estimates = {}
    for site, at in metric.per_site.items():
        if not has_enough(ALL_METRICS[name], at.num_patients):
            continue
        error = math.nan if at.standard_error is None else at.standard_error
        if at.standard_error is None and at.ci95_low is not None and at.ci95_high is not None:
            error = (at.ci95_high - at.ci95_low) / (2 * Z95)
        estimates[site] = Estimate(at.mean, at.num_cases, error, math.nan, math.nan, at.num_patients)
    return estimates
