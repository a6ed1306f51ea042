"""The comparison's charts: arms by site with intervals, and what each site gains over its own model."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from msfl_server.report.charts import INK, LINE, MANY_SITES_COLOUR, SITE_COLOURS, STYLE, axis_label, inline_svg
from msfl_server.research.arms.plan import CENTRALISED, LOCAL
from msfl_server.research.arms.results import ArmsResult
from msfl_server.research.arms.verdict import arm_title

_MEAN = "mean over sites"


def arms_by_site(results: ArmsResult) -> str:
    """A row of points a site, one an arm, with 95% intervals, as inline SVG."""
    arms = (LOCAL, CENTRALISED, *results.federated)
    with mpl.rc_context(STYLE):
        figure, axes = _rows_of(results, len(arms))
        for number, arm in enumerate(arms):
            points = [results.value(arm, site) for site in (*results.sites, None)]
            known = [(row, one) for row, one in enumerate(points) if one is not None]
            spans = [(row, one.value, one.ci95_low, one.ci95_high) for row, one in known]
            _points(axes, spans, number, len(arms), _colour(number, len(arms)), arm_title(arm))
        axes.set_xlabel(axis_label(results.metric))
        figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8.5)
        return inline_svg(figure, "arms")


def gains_by_site(results: ArmsResult) -> str:
    """A row a site of what each federated arm and the centralised one have more than its own model, as inline SVG."""
    arms = (CENTRALISED, *results.federated)
    with mpl.rc_context(STYLE):
        figure, axes = _rows_of(results, len(arms))
        for number, arm in enumerate(arms):
            found = [results.difference(arm, LOCAL, site) for site in (*results.sites, None)]
            spans = [
                (row, one.difference, one.ci95_low, one.ci95_high) for row, one in enumerate(found) if one is not None
            ]
            _points(axes, spans, number, len(arms), _colour(number + 1, len(arms) + 1), arm_title(arm))
        axes.axvline(0, color=INK, linewidth=1.0)
        if not results.higher_is_better:
            axes.invert_xaxis()
        axes.set_xlabel(f"{axis_label(results.metric)}, more than local-only")
        figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8.5)
        return inline_svg(figure, "gains")


def _rows_of(results: ArmsResult, num_arms: int) -> tuple[Figure, Axes]:
    labels = [*results.sites, _MEAN]
    figure = Figure(figsize=(5.2, 1.0 + (0.22 * num_arms + 0.2) * len(labels)), layout="constrained")
    axes = figure.add_subplot()
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.axhline(len(labels) - 1.5, color=LINE, linewidth=1)
    axes.grid(visible=False, axis="y")
    return figure, axes


def _points(
    axes: Axes,
    spans: list[tuple[int, float, float | None, float | None]],
    number: int,
    num_arms: int,
    colour: str,
    label: str,
) -> None:
    shift = 0.7 * ((number + 0.5) / num_arms - 0.5)
    for row, _, low, high in spans:
        if low is not None and high is not None:
            axes.plot([low, high], [row + shift] * 2, color=colour, linewidth=1.4)
    rows = np.array([row + shift for row, *_ in spans])
    axes.plot([value for _, value, *_ in spans], rows, "o", color=colour, markersize=5, label=label)


def _colour(number: int, num_arms: int) -> str:
    return SITE_COLOURS[number] if num_arms <= len(SITE_COLOURS) else MANY_SITES_COLOUR
