"""What the report shows of a classification: curves, every metric with its intervals, confusion matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from msfl_common.metrics.classification_curves import DEFAULT_THRESHOLD
from msfl_common.metrics.registry import ALL_METRICS
from msfl_server.report.charts import (
    MANY_SITES_COLOUR,
    SITE_COLOURS,
    axis_label,
    format_interval,
    format_value,
    site_colours,
)
from msfl_server.report.classification_charts import calibration_chart, precision_recall_chart, roc_chart
from msfl_server.results.classification import ClassificationSummary, Confusion
from msfl_server.results.summary import MetricSummary, SiteMetric, Summary

_PATIENTS = {
    "test": "Figures are of test patients, whom neither training nor the choice of the threshold has seen.",
    "validation": "Figures are of validation patients, on whom the threshold is chosen too: they flatter.",
}


def classification_section(summary: Summary, left_out: str | None = None) -> dict[str, Any] | None:
    """The section's content; None of another task. `left_out`: the site that trained nothing and tested alone."""
    found = summary.classification
    if found is None:
        return None
    asked = [left_out] if left_out is not None else [site.name for site in summary.sites]
    return {
        "facts": _facts(found, left_out if found.split == "test" else None),
        "charts": _charts(found),
        "legend": _legend(found),
        "has_bold": len(found.curve_names) == 1,
        "together": _together(found),
        "sites": [{"name": name, "num_cases": site.num_cases} for name, site in found.sites.items()],
        "num_cases": sum(site.num_cases for site in found.sites.values()),
        "rows": [_row(name, metric, list(found.sites)) for name, metric in summary.metrics.items()],
        "matrices": _matrices(found),
        "silent": [name for name in asked if name not in found.sites],
        "withheld": [name for name, site in found.sites.items() if site.confusion is None],
    }


def _facts(found: ClassificationSummary, left_out: str | None) -> str:
    if found.threshold is None:
        classes = f"Classes {', '.join(found.classes)}, each held against the rest; the most probable one is predicted."
    else:
        why = "where sensitivity and specificity on validation patients add up to most (Youden's J)"
        if found.threshold == DEFAULT_THRESHOLD:
            why = "the default: the sites' validation figures do not tell a better one"
        start = f"The positive class is {found.classes[-1]}, predicted from a probability of {found.threshold:.3f} on"
        classes = f"{start}, {why}."
    patients = _PATIENTS[found.split] if left_out is None else f"Figures are of {left_out}, which was left out whole."
    return f"Predicted: {found.outcome}. {classes} {patients}"


def _charts(found: ClassificationSummary) -> list[dict[str, Any]]:
    """One line a site, and the sites together; of more than two classes one line a class; none if all is withheld."""
    together = [found.groups_together(number) for number in range(len(found.curve_names))]
    if not any(len(groups_G3) for groups_G3 in together):
        return []
    if len(together) == 1:
        thin, bold = {site: found.groups_at(site, 0) for site in found.sites}, together[0]
        what = f"{len(thin)} sites and all of them together"
    else:
        thin, bold = dict(zip(found.curve_names, together, strict=True)), None
        what = f"{len(thin)} classes, all sites together"
    figures = {name: f"{ALL_METRICS[name].title} {value:.2f}" for name, value in found.together.items()}
    return [
        {"title": title, "alt": f"{title} of {what}. {figures.get(name, '')}", "svg": Markup(chart(thin, bold))}
        for title, name, chart in (
            ("ROC", "auroc", roc_chart),
            ("Precision and recall", "auprc", precision_recall_chart),
            ("Calibration", "ece", calibration_chart),
        )
    ]


def _legend(found: ClassificationSummary) -> list[tuple[str, str]]:
    is_binary = len(found.curve_names) == 1
    names = list(found.sites) if is_binary else list(found.curve_names)
    if len(names) > len(SITE_COLOURS):
        return [("Each site" if is_binary else "Each class", MANY_SITES_COLOUR)]
    return list(zip(names, site_colours(len(names)), strict=True))


def _together(found: ClassificationSummary) -> str:
    """The figures of all sites' groups, in words."""
    return ", ".join(f"{ALL_METRICS[name].title} {format_value(name, value)}" for name, value in found.together.items())


def _row(name: str, metric: MetricSummary, sites: Sequence[str]) -> dict[str, Any]:
    at_sites = [_cell(name, metric.per_site.get(site)) for site in sites]
    return {"title": axis_label(name), "cells": [_cell(name, metric), *at_sites]}


def _cell(name: str, figure: MetricSummary | SiteMetric | None) -> dict[str, str]:
    if figure is None:
        return {"mean": "n/a", "interval": ""}
    interval = format_interval(name, figure.ci95_low, figure.ci95_high)
    return {"mean": format_value(name, figure.mean), "interval": interval}


def _matrices(found: ClassificationSummary) -> list[dict[str, Any]]:
    """The confusion matrix of all sites, then of each."""
    matrices: list[tuple[str, Confusion]] = [
        (name, site.confusion) for name, site in found.sites.items() if site.confusion is not None
    ]
    if (pooled := found.confusion) is not None and len(matrices) > 1:
        matrices.insert(0, ("All sites", tuple(tuple(row) for row in pooled.tolist())))
    return [
        {
            "title": title,
            "classes": found.classes,
            "rows": [
                {"label": label, "counts": row, "right": f"{100 * row[number] / sum(row):.0f}%" if sum(row) else "n/a"}
                for number, (label, row) in enumerate(zip(found.classes, confusion, strict=True))
            ],
        }
        for title, confusion in matrices
    ]
