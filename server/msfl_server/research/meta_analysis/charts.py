"""Figures of a meta-analysis: forest, funnel and risk of bias, as inline SVG."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from msfl_common.metrics.intervals import Z95
from msfl_server.report.charts import (
    ACCENT,
    INK,
    STYLE,
    diamond,
    finish_forest,
    inline_svg,
    prediction_line,
    row_text,
)
from msfl_server.research.meta_analysis.analysis import Analysis
from msfl_server.research.meta_analysis.risk_of_bias import LEVELS, Judgements

LEVEL_COLOURS = {"low": "#009E73", "unclear": "#E69F00", "high": "#D55E00"}


def forest_chart(found: Analysis, axis: str, digits: int) -> str:
    """Studies with their intervals, larger for more weight, and what they come to together."""
    means = [
        ("Fixed effect", found.fixed.mean, found.fixed.ci95),
        ("Random effects", found.random.mean, found.random.ci95),
    ]
    num_rows = len(found.studies) + len(means) + (found.prediction95 is not None)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.6, 0.8 + 0.3 * num_rows), layout="constrained")
        axes = figure.add_subplot()
        largest = max(study.weight_random for study in found.studies)
        for row, study in enumerate(found.studies):
            axes.plot(study.ci95, [row, row], color=INK, linewidth=1.3)
            size = 3 + 5 * (study.weight_random / largest) ** 0.5
            axes.plot(study.estimate, row, "s", color=INK, markersize=size)
            row_text(axes, row, study.estimate, *study.ci95, digits=digits)
        for row, (label, mean, ends) in enumerate(means, start=len(found.studies)):
            low, high = (None, None) if ends is None else ends
            is_chosen = label.split()[0].lower() == found.chosen
            diamond(axes, row, mean, low, high, filled=is_chosen, digits=digits)
        labels = [*(study.study for study in found.studies), *(label for label, _, _ in means)]
        if found.prediction95 is not None:
            prediction_line(axes, len(labels), *found.prediction95, digits=digits)
            labels.append("A further study")
        chosen = found.fixed.mean if found.chosen == "fixed" else found.random.mean
        finish_forest(axes, labels, len(found.studies), chosen)
        axes.set_xlabel(axis)
        return inline_svg(figure, "forest")


def funnel_chart(found: Analysis, axis: str) -> str:
    """Estimates by standard error, with where 95 of 100 lie about the fixed effect if studies do not differ."""
    errors = [study.standard_error for study in found.studies]
    top = 1.1 * max(errors)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.9, 3.4), layout="constrained")
        axes = figure.add_subplot()
        mean = found.fixed.mean
        for side in (-1, 1):
            axes.plot([mean, mean + side * Z95 * top], [0, top], color=ACCENT, linewidth=1, linestyle=(0, (4, 3)))
        axes.axvline(mean, color=ACCENT, linewidth=1)
        axes.plot([study.estimate for study in found.studies], errors, "o", color=INK, markersize=5, alpha=0.8)
        axes.set_ylim(top, 0)
        axes.set_xlabel(axis)
        axes.set_ylabel("Standard error")
        return inline_svg(figure, "funnel")


def bias_chart(judged: Judgements) -> str:
    """Share of studies at each level of each domain."""
    counts = judged.counts()
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.6, 0.7 + 0.36 * len(counts)), layout="constrained")
        axes = figure.add_subplot()
        left = np.zeros(len(counts))
        for level in LEVELS:
            shares = np.array([100 * of[level] / sum(of.values()) for of in counts.values()])
            axes.barh(range(len(counts)), shares, left=left, color=LEVEL_COLOURS[level], height=0.7)
            left = left + shares
        axes.set_yticks(range(len(counts)), list(counts))
        axes.set_ylim(len(counts) - 0.5, -0.5)
        axes.set_xlim(0, 100)
        axes.set_xlabel("Studies, %")
        axes.grid(visible=False, axis="y")
        return inline_svg(figure, "bias")
