"""The report's figures of a run, each with its numbers as rows for a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from msfl_common.metrics.registry import ALL_METRICS, HEADLINE
from msfl_common.metrics.segmentation import NATIVE_METRICS
from msfl_server.report.charts import (
    MANY_SITES_COLOUR,
    SITE_COLOURS,
    between_sites,
    forest_plot,
    learning_curve,
    site_colours,
)
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
        if not pooled or name in NATIVE_METRICS:  # those are of the last round alone
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
    note = None
    if analysis:
        note = (
            f"I² = {100 * analysis.i2:.0f}%, τ² = {analysis.tau2:.4f}, "
            f"Q = {analysis.q:.1f} with {analysis.num_sites - 1} degrees of freedom, p = {analysis.p:.2g}"
        )
    svg = Markup(forest_plot(name, metric))
    rows = _metric_rows(name, metric)
    if analysis:
        ends = {"ci95_low": analysis.random_low, "ci95_high": analysis.random_high}
        rows.append({**dict.fromkeys(rows[0]), "metric": name, "of": "random effects", "mean": analysis.random, **ends})
    return {"title": f"{ALL_METRICS[name].title} by site", "alt": alt, "svg": svg, "note": note, "rows": rows}
