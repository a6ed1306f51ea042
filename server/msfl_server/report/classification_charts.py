"""The report's curves of a classification: ROC, precision-recall and calibration, from groups of cases.

Legend: G groups (mean score, cases, positive cases).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from msfl_common.metrics.calibration_line import calibration_groups, calibration_line
from msfl_common.metrics.classification_curves import precision_recall_curve, roc_curve
from msfl_common.metrics.score_bins import CASES, POSITIVES
from msfl_server.report.charts import ACCENT, INK, STYLE, inline_svg, site_colours

Groups = NDArray[np.float64]
_DASHED = (0, (4, 3))


def roc_chart(thin: Mapping[str, Groups], bold: Groups | None) -> str:
    """True against false positive rate, as inline SVG.

    Args:
        thin: what each thin line stands for, coloured by `site_colours`, to its groups G x 3.
        bold: groups of the bold line.
    """
    with mpl.rc_context(STYLE), _square("False positive rate", "True positive rate") as (figure, axes):
        axes.plot([0, 1], [0, 1], color=INK, linewidth=0.9, linestyle=_DASHED)
        for groups_G3, colour, width in _lines(thin, bold):
            axes.plot(*roc_curve(groups_G3), color=colour, linewidth=width)
        return inline_svg(figure, "roc")


def precision_recall_chart(thin: Mapping[str, Groups], bold: Groups | None) -> str:
    """Precision against recall, with the prevalence of each line dashed, as inline SVG; see `roc_chart`."""
    with mpl.rc_context(STYLE), _square("Recall (sensitivity)", "Precision") as (figure, axes):
        for groups_G3, colour, width in _lines(thin, bold):
            recall, precision = precision_recall_curve(groups_G3)
            if not recall.size:
                continue
            axes.plot(recall, precision, color=colour, linewidth=width)
            prevalence = groups_G3[:, POSITIVES].sum() / groups_G3[:, CASES].sum()
            axes.axhline(prevalence, color=colour, linewidth=width / 2, linestyle=_DASHED)
        return inline_svg(figure, "precision-recall")


def calibration_chart(thin: Mapping[str, Groups], bold: Groups | None, design_effect: float = 1.0) -> str:
    """How often the outcome came true at each probability, as inline SVG: smooth lines; see `calibration_line`.

    The bold line has its 95% band, and large groups with their intervals beside it. A line of too few cases is left
    out.
    """
    with mpl.rc_context(STYLE), _square("Predicted probability", "Share with the outcome") as (figure, axes):
        axes.plot([0, 1], [0, 1], color=INK, linewidth=0.9, linestyle=_DASHED)
        for groups_G3, colour, width in _lines(thin, bold):
            line = calibration_line(groups_G3, design_effect)
            if line is None:
                continue
            if groups_G3 is bold:
                axes.fill_between(line.score_S, line.low_S, line.high_S, color=ACCENT, alpha=0.18, linewidth=0)
                for score, cases, positives, low, high in calibration_groups(groups_G3, design_effect):
                    axes.plot([score, score], [low, high], color=ACCENT, linewidth=1.0)
                    axes.plot(score, positives / cases, "o", color=ACCENT, markersize=4.5)
            axes.plot(line.score_S, line.share_S, color=colour, linewidth=width)
        return inline_svg(figure, "calibration")


@contextmanager
def _square(x: str, y: str) -> Iterator[tuple[Figure, Axes]]:
    figure = Figure(figsize=(3.7, 3.6), layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlabel=x, ylabel=y, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    yield figure, axes


def _lines(thin: Mapping[str, Groups], bold: Groups | None) -> Iterator[tuple[Groups, str, float]]:
    """Groups, colour and width of each line."""
    for groups_G3, colour in zip(thin.values(), site_colours(len(thin)), strict=True):
        yield groups_G3, colour, 1.2
    if bold is not None:
        yield bold, ACCENT, 2.6
