"""The report's figures of a run, each with its numbers as rows for a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from msfl_common.metrics.registry import ALL_METRICS, HEADLINE
from msfl_common.metrics.segmentation import is_native
from msfl_server.report.charts import (
    MANY_SITES_COLOUR,
    SITE_COLOURS,
    forest_plot,
    format_value,
    learning_curve,
    site_colours,
)
from msfl_server.results.between_sites import BetweenSites, WithoutSite
from msfl_server.results.compare_sites import between_sites, why_not_pooled
from msfl_server.results.summary import MetricSummary, SiteMetric, Summary


def metric_rows(summary: Summary) -> list[dict[str, Any]]:
    """Every metric of all sites together and of each, a row each."""
    return [row for name in ALL_METRICS if name in summary.metrics for row in _metric_rows(name, summary.metrics[name])]


def round_rows(summary: Summary) -> list[dict[str, Any]]:
    """What the rounds came to, a row each."""
    names = sorted({name for record in summary.history for name in record.metrics})
    return [
        {
            "round": record.round,
            "train_loss": record.train_loss,
            **{name: record.metrics.get(name) for name in names},
            "trained": " ".join(record.sites_ok),
            "failed": " ".join(f"{one.site}:{one.code}" for one in record.sites_failed),
            "stood_out": " ".join(f"{site}:{why}" for site, why in record.odd.items()),
            "seconds": record.seconds,
        }
        for record in summary.history
    ]


def _metric_rows(name: str, metric: MetricSummary) -> list[dict[str, Any]]:
    def row(of: str, figure: MetricSummary | SiteMetric, num_cases: int) -> dict[str, Any]:
        return {
            "metric": name,
            "unit": ALL_METRICS[name].unit,
            "of": of,
            "mean": figure.mean,
            "ci95_low": figure.ci95_low,
            "ci95_high": figure.ci95_high,
            "cases": num_cases,
            "patients": figure.num_patients,
        }

    sites = [row(site, at, at.num_cases) for site, at in metric.per_site.items()]
    return [*sites, row("all sites", metric, metric.num_cases)]


def curves(summary: Summary) -> list[dict[str, Any]]:
    """Loss and main metrics over rounds."""
    losses = {result.round: result.train_loss for result in summary.history if result.train_loss is not None}
    drawn = []
    if losses:
        svg = learning_curve("curve-loss", losses, {})
        drawn.append(_curve("Training loss", losses, svg, {}))
    for name in HEADLINE[summary.task]:
        pooled = {r.round: r.metrics[name] for r in summary.history if name in r.metrics}
        if not pooled or is_native(name):  # those are of the last round alone
            continue
        sites = {
            site.name: {
                r.round: r.per_site[name][site.name] for r in summary.history if site.name in r.per_site.get(name, {})
            }
            for site in summary.sites
            if not summary.is_pooled
        }
        svg = learning_curve(f"curve-{name}", pooled, sites)
        drawn.append(_curve(ALL_METRICS[name].title, pooled, svg, sites))
    return drawn


def _curve(
    title: str, values: Mapping[int, float], svg: str, sites: Mapping[str, Mapping[int, float]]
) -> dict[str, Any]:
    first, last = min(values), max(values)
    alt = f"{title} by round: {values[first]:.3f} in round {first}, {values[last]:.3f} in round {last}."
    rows = [
        {"round": number, "all sites": value, **{site: of_site.get(number) for site, of_site in sites.items()}}
        for number, value in values.items()
    ]
    # Drawn by matplotlib from numbers; names in it are escaped there.
    return {"title": title, "alt": alt, "svg": Markup(svg), "rows": rows}


def legend(summary: Summary) -> list[tuple[str, str]]:
    """Line colours of the sites, where the history knows them."""
    if summary.is_pooled or not any(
        name in result.per_site for result in summary.history for name in HEADLINE[summary.task]
    ):
        return []
    if len(summary.sites) > len(SITE_COLOURS):
        return [("Each site", MANY_SITES_COLOUR)]
    return [(s.name, c) for s, c in zip(summary.sites, site_colours(len(summary.sites)), strict=True)]


def is_compared(summary: Summary, name: str, metric: MetricSummary) -> bool:
    """Whether a metric is charted: one that a reader looks for, and that two sites or more have reported."""
    return name in HEADLINE[summary.task] and len(metric.per_site) > 1


def forest(name: str, metric: MetricSummary) -> dict[str, Any]:
    """A metric site by site, with what is known of the differences."""
    means = [site.mean for site in metric.per_site.values()]
    alt = (
        f"{ALL_METRICS[name].title} at {len(means)} sites, from {min(means):.2f} to {max(means):.2f}; "
        f"pooled {metric.mean:.2f}."
    )
    analysis = between_sites(name, metric)
    notes = []
    if analysis:
        notes.append(
            f"I² = {100 * analysis.i2:.0f}%, Q = {analysis.q:.1f} "
            f"with {analysis.degrees_of_freedom} degrees of freedom, p = {analysis.p:.2g}"
        )
    if analysis and analysis.random and analysis.likelihood:
        notes[0] += f", τ² = {analysis.random.tau2:.4f} (REML {analysis.likelihood.tau2:.4f})"
    if reason := why_not_pooled(name, metric):
        notes.append(f"No mean over sites such as these: {reason}")
    svg = Markup(forest_plot(name, metric, analysis=analysis))
    rows = [*_metric_rows(name, metric), *_between_rows(name, metric, analysis)]
    note = ". ".join(notes)
    return {"title": f"{ALL_METRICS[name].title} by site", "alt": alt, "svg": svg, "note": note, "rows": rows}


def _between_rows(name: str, metric: MetricSummary, analysis: BetweenSites | None) -> list[dict[str, Any]]:
    """The means over sites and a further one's interval, as rows of the chart's file."""
    if analysis is None or analysis.random is None:
        return []
    means = {"fixed effect": analysis.fixed, "random effects": analysis.random, "REML": analysis.likelihood}
    ends: dict[str, tuple[float | None, ...]] = {
        of: (at.mean, at.ci95_low, at.ci95_high) for of, at in means.items() if at is not None
    }
    ends["a further site"] = (None, analysis.prediction_low, analysis.prediction_high)
    nothing = dict.fromkeys(_metric_rows(name, metric)[0])
    return [
        {**nothing, "metric": name, "of": of, "mean": mean, "ci95_low": low, "ci95_high": high}
        for of, (mean, low, high) in ends.items()
    ]


def without_each(summary: Summary) -> dict[str, Any] | None:
    """The random-effects mean of each headline metric where a site is left out; None where there is none."""
    told = {
        name: found
        for name in HEADLINE[summary.task]
        if name in summary.metrics and (found := between_sites(name, summary.metrics[name])) is not None
    }
    sites = sorted({site for found in told.values() for site, without in found.without.items() if without.random})
    told = {name: found for name, found in told.items() if any(site in found.without for site in sites)}
    if not sites:
        return None
    return {
        "titles": [ALL_METRICS[name].title for name in told],
        "rows": [
            {"label": "All sites", "cells": [_random_cell(name, found) for name, found in told.items()]},
            *(
                {
                    "label": f"Without {site}",
                    "cells": [_random_cell(name, found.without.get(site)) for name, found in told.items()],
                }
                for site in sites
            ),
        ],
    }


def _random_cell(name: str, found: BetweenSites | WithoutSite | None) -> str:
    if found is None or found.random is None:
        return "n/a"
    at = found.random
    interval = f"{format_value(name, at.ci95_low)} to {format_value(name, at.ci95_high)}"
    return f"{format_value(name, at.mean)} ({interval}), I² {100 * found.i2:.0f}%"


def not_compared(summary: Summary) -> list[str]:
    """A line for each reason why headline metrics have no chart of their sites."""
    reasons: dict[str, list[str]] = {}
    for name in HEADLINE[summary.task]:
        if (metric := summary.metrics.get(name)) is not None and not is_compared(summary, name, metric):
            reasons.setdefault(why_not_pooled(name, metric), []).append(ALL_METRICS[name].title)
    return [f"{', '.join(titles)}: {reason}." for reason, titles in reasons.items()]
