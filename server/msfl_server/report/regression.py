"""What the report shows of a regression: calibration lines, residuals, metrics with intervals, coefficients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.figure import Figure

from msfl_common.config.study import StudyConfig
from msfl_common.secure_aggregation.layout import POOLED
from msfl_server.report.charts import ACCENT, INK, STYLE, inline_svg, site_colours
from msfl_server.report.classification import legend_of, metric_row, metrics_csv
from msfl_server.report.inputs import is_harmonized, title_of, unit_of
from msfl_server.report.patients import patients_table
from msfl_server.results.regression import NumbersAtSite, RegressionSummary
from msfl_server.results.summary import Summary

_PATIENTS = {
    "test": "Figures are of test patients, whom training has not seen.",
    "validation": "Figures are of validation patients, whom training has not seen.",
}
_DASHED = (0, (4, 3))


def regression_section(summary: Summary, study: StudyConfig) -> dict[str, Any] | None:
    """The section's content; None of another task."""
    found = summary.regression
    if found is None or study.regression is None:
        return None
    outcome = study.regression.outcome
    told = [name for name in found.sites if name != POOLED]
    names = (*found.inputs, f"{outcome.column or outcome.endpoint} ({found.unit})")
    where = _PATIENTS[found.split] if study.left_out is None else f"Figures are of {study.left_out}, left out whole."
    return {
        "facts": f"Predicted: {found.outcome}, from {found.range[0]:g} to {found.range[1]:g}. {where}",
        "unit": found.unit,
        "charts": _charts(found),
        "legend": legend_of(told, "Each site"),
        "num_cases": found.together.num_cases if found.together else 0,
        "sites": [{"name": name, "num_cases": found.sites[name].num_cases} for name in told],
        "rows": [metric_row(name, metric, told) for name, metric in summary.metrics.items()],
        "spreads": _spreads(found, told),
        "metrics_csv": metrics_csv(summary, told),
        "error": found.prediction_error,
        "pooled_sites": summary.num_sites if summary.is_pooled else 0,
        "patients": patients_table(found.characteristics, names, study),
        "coefficients": _coefficients(found, study),
    }


def _charts(found: RegressionSummary) -> list[dict[str, Any]]:
    """A line a site, and a bold one of all sites together; none where no site told, or predictions do not vary."""
    at_sites = {name: one for name, one in found.sites.items() if name != POOLED}
    if found.together is None or found.together.line is None:
        return []
    rows = [
        {"line": name, "intercept": one.line[0], "slope": one.line[1], "predicted_mean": one.predicted[0]}
        for name, one in {"All sites": found.together, **at_sites}.items()
        if one.line is not None
    ]
    svg = _calibration_chart(at_sites, found.together, found.unit, found.range)
    alt = f"Observed over predicted numbers of {len(at_sites) or 'all'} sites; slope {found.together.line[1]:.2f}"
    return [{"title": "Calibration", "alt": alt, "svg": Markup(svg), "rows": rows}]


def _calibration_chart(
    thin: Mapping[str, NumbersAtSite], bold: NumbersAtSite, unit: str, possible: tuple[float, float]
) -> str:
    """Lines through observed over predicted numbers, two standard deviations of predictions to either side."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.7, 3.6), layout="constrained")
        axes = figure.add_subplot()
        axes.set(xlabel=f"Predicted, {unit}", ylabel=f"Observed, {unit}")
        colours = site_colours(len(thin))
        for one, colour, width in [
            *((at, c, 1.2) for at, c in zip(thin.values(), colours, strict=True)),
            (bold, ACCENT, 2.6),
        ]:
            if one.line is None:
                continue
            mean, deviation = one.predicted
            ends = [max(possible[0], mean - 2 * deviation), min(possible[1], mean + 2 * deviation)]
            axes.plot(ends, [one.line[0] + one.line[1] * end for end in ends], color=colour, linewidth=width)
        low, high = (min(axes.get_xlim()[0], axes.get_ylim()[0]), max(axes.get_xlim()[1], axes.get_ylim()[1]))
        axes.plot([low, high], [low, high], color=INK, linewidth=0.9, linestyle=_DASHED)
        axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
        return inline_svg(figure, "regression-calibration")


def _spreads(found: RegressionSummary, told: list[str]) -> list[dict[str, Any]]:
    """Mean and standard deviation of observed and predicted numbers, and of what lies between them."""
    columns = [found.together, *(found.sites[name] for name in told)]

    def cells(of: str) -> list[str]:
        return [
            "n/a"
            if one is None
            else "{:.2f} ({:.2f})".format(
                *(getattr(one, of) if of != "residual" else (one.residual_mean, one.residual_sd))
            )
            for one in columns
        ]

    titles = {"observed": "Observed", "predicted": "Predicted", "residual": "Residual (observed less predicted)"}
    return [{"title": f"{title}, mean (SD)", "cells": cells(of)} for of, title in titles.items()]


def _coefficients(found: RegressionSummary, study: StudyConfig) -> dict[str, Any] | None:
    if not found.coefficients or study.regression is None:
        return None
    is_scaled = study.regression.preparation.subject_scaling != "none"
    return {
        "rows": [
            {
                "title": title_of(one.input, study.regression),
                "harmonized": is_harmonized(one.input, study),
                "unit": "of a case's own scale" if is_scaled else unit_of(one.input, study.regression),
                "per_sd": "n/a" if one.per_sd is None else f"{one.per_sd:+.3g}",
                "per_unit": f"{one.per_unit:+.3g}" if one.is_used else "not used",
            }
            for one in found.coefficients
        ],
        "csv": [one.model_dump() for one in found.coefficients],
    }
