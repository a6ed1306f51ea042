"""What the report shows of a classification: curves, every metric with its intervals, confusion matrices."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from msfl_common.config.study import StudyConfig
from msfl_common.metrics.calibration_line import FEWEST_OF_EACH, calibration_groups, calibration_line, has_enough
from msfl_common.metrics.classification_curves import DEFAULT_THRESHOLD, precision_recall_curve, roc_curve
from msfl_common.metrics.registry import ALL_METRICS
from msfl_common.metrics.score_bins import CASES, POSITIVES
from msfl_common.secure_aggregation.layout import POOLED
from msfl_server.report.charts import (
    MANY_SITES_COLOUR,
    SITE_COLOURS,
    axis_label,
    format_interval,
    format_value,
    site_colours,
)
from msfl_server.report.classification_charts import Groups, calibration_chart, precision_recall_chart, roc_chart
from msfl_server.report.inputs import coefficients_table
from msfl_server.report.patients import class_counts_table, patients_table
from msfl_server.results.classification import ClassificationSummary, Confusion
from msfl_server.results.summary import MetricSummary, SiteMetric, Summary

_PATIENTS = {
    "test": "Figures are of test patients, whom neither training nor the choice of the threshold has seen.",
    "validation": "Figures are of validation patients, on whom the threshold is chosen too: they flatter.",
}


def classification_section(summary: Summary, study: StudyConfig) -> dict[str, Any] | None:
    """The section's content; None of another task. A site that a fold left out trained nothing and tested alone."""
    found, left_out = summary.classification, study.left_out
    if found is None or study.classification is None:
        return None
    asked = [left_out] if left_out is not None else [site.name for site in summary.sites]
    told = [name for name in found.sites if name != POOLED]
    return {
        "facts": _facts(found, left_out if found.split == "test" else None, study.evaluate is not None),
        "charts": _charts(found),
        "calibration": _calibration_note(found),
        "legend": _legend(found),
        "has_bold": len(found.curve_names) == 1,
        "together": _together(found),
        "sites": [{"name": name, "num_cases": site.num_cases} for name, site in found.sites.items() if name in told],
        "num_cases": sum(site.num_cases for site in found.sites.values()),
        "rows": [metric_row(name, metric, told) for name, metric in summary.metrics.items()],
        "metrics_csv": metrics_csv(summary, told),
        "matrices": _matrices(found),
        "silent": [name for name in asked if name not in found.sites],
        "withheld": [name for name in told if found.sites[name].confusion is None],
        "pooled_sites": summary.num_sites if summary.is_pooled else 0,
        "counts": class_counts_table(found),
        "patients": patients_table(found.characteristics, found.inputs, study),
        "coefficients": coefficients_table(found, study),
    }


def _facts(found: ClassificationSummary, left_out: str | None, is_given: bool) -> str:
    """What is predicted, from which probability on, and of whom figures are; `is_given`: by a model trained before."""
    if found.threshold is None:
        classes = f"Classes {', '.join(found.classes)}, each held against the rest; the most probable one is predicted."
    else:
        why = "where sensitivity and specificity on validation patients add up to most (Youden's J)"
        if found.threshold == DEFAULT_THRESHOLD:
            why = "the default: the sites' validation figures do not tell a better one"
        if is_given:
            why = "as the model's folder says"
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
        thin, bold = {site: found.groups_at(site, 0) for site in found.sites if site != POOLED}, together[0]
        what = f"{len(thin)} sites and all of them together" if thin else "all sites together"
    else:
        thin, bold = dict(zip(found.curve_names, together, strict=True)), None
        what = f"{len(thin)} classes, all sites together"
    figures = {name: f"{ALL_METRICS[name].title} {value:.2f}" for name, value in found.together.items()}
    drawn = [
        (
            "ROC",
            "auroc",
            roc_chart(thin, bold),
            _curve_rows(thin, bold, roc_curve, "false_positive_rate", "true_positive_rate"),
        ),
        (
            "Precision and recall",
            "auprc",
            precision_recall_chart(thin, bold),
            _curve_rows(thin, bold, precision_recall_curve, "recall", "precision"),
        ),
    ]
    if any(calibration_line(groups_G3, found.design_effect) for groups_G3 in together):
        svg = calibration_chart(thin, bold, found.design_effect)
        drawn.append(("Calibration", "ece", svg, _group_rows(thin, bold, found.design_effect)))
    return [
        {"title": title, "alt": f"{title} of {what}. {figures.get(name, '')}", "svg": Markup(svg), "rows": rows}
        for title, name, svg, rows in drawn
    ]


def _named(thin: Mapping[str, Groups], bold: Groups | None) -> dict[str, Groups]:
    return {**({} if bold is None else {"All sites": bold}), **thin}


def _curve_rows(
    thin: Mapping[str, Groups], bold: Groups | None, curve: Callable[[Groups], tuple[Groups, Groups]], x: str, y: str
) -> list[dict[str, object]]:
    """The points of each line."""
    return [
        {"line": name, x: float(at), y: float(value)}
        for name, groups_G3 in _named(thin, bold).items()
        for at, value in zip(*curve(groups_G3), strict=True)
    ]


def _group_rows(thin: Mapping[str, Groups], bold: Groups | None, design_effect: float) -> list[dict[str, object]]:
    """The large groups beside the calibration's lines."""
    return [
        {"line": name, "probability": score, "cases": cases, "with_outcome": positives, "low": low, "high": high}
        for name, groups_G3 in _named(thin, bold).items()
        if has_enough(groups_G3, design_effect)
        for score, cases, positives, low, high in calibration_groups(groups_G3, design_effect)
    ]


def _calibration_note(found: ClassificationSummary) -> str:
    """What the chart of calibration shows, or why there is none."""
    groups = {name: found.groups_together(number) for number, name in enumerate(found.curve_names)}
    needed = f"{FEWEST_OF_EACH} cases with the outcome and {FEWEST_OF_EACH} without it"
    if not any(calibration_line(groups_G3, found.design_effect) for groups_G3 in groups.values()):
        positives, cases = (int(min(one[:, column].sum() for one in groups.values())) for column in (POSITIVES, CASES))
        return f"Calibration is not drawn: it takes {needed}, and there are {positives} of {cases} with it."
    note = (
        "Calibration is a line of the outcome's log odds on the predicted ones (Cox 1958), fitted to the groups, from "
        f"their lowest to their highest probability; it takes {needed}. More bent curves would ask for 200 with and "
        "200 without (Van Calster et al. 2016)."
    )
    if len(found.curve_names) > 1:
        return note
    at_sites = [name for name in found.sites if name != POOLED]
    out = [name for name in at_sites if calibration_line(found.groups_at(name, 0), found.design_effect) is None]
    left = f" Without a line of their own, of too few such cases: {', '.join(out)}." if out else ""
    return f"{note} The band is 95%; points: groups of about 40 cases or more, with Wilson's interval.{left}"


def _legend(found: ClassificationSummary) -> list[tuple[str, str]]:
    is_binary = len(found.curve_names) == 1
    names = [name for name in found.sites if name != POOLED] if is_binary else list(found.curve_names)
    return legend_of(names, "Each site" if is_binary else "Each class")


def legend_of(names: Sequence[str], each: str) -> list[tuple[str, str]]:
    """Name and colour of each line; of too many to tell apart, one for all, called `each`."""
    if len(names) > len(SITE_COLOURS):
        return [(each, MANY_SITES_COLOUR)]
    return list(zip(names, site_colours(len(names)), strict=True))


def _together(found: ClassificationSummary) -> str:
    """The figures of all sites' groups, in words."""
    return ", ".join(f"{ALL_METRICS[name].title} {format_value(name, value)}" for name, value in found.together.items())


def metrics_csv(summary: Summary, sites: Sequence[str]) -> list[dict[str, object]]:
    """Every metric of all sites, and of each."""
    rows: list[dict[str, object]] = []
    for name, metric in summary.metrics.items():
        told: list[tuple[str, MetricSummary | SiteMetric | None]] = [("all", metric)]
        told += [(site, metric.per_site.get(site)) for site in sites]
        rows += [
            {
                "metric": name,
                "site": site,
                "value": one and one.mean,
                "ci95_low": one and one.ci95_low,
                "ci95_high": one and one.ci95_high,
                "patients": one and one.num_patients,
            }
            for site, one in told
        ]
    return rows


def metric_row(name: str, metric: MetricSummary, sites: Sequence[str]) -> dict[str, Any]:
    """A metric of all sites, then of each."""
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
        ("All sites" if name == POOLED else name, site.confusion)
        for name, site in found.sites.items()
        if site.confusion is not None
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
