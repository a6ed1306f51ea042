"""The report's charts: SVG that follows the page's colours, and overlays as PNG.

Legend: H, W pixels of a slice.

Charts are drawn in stand-in colours that become CSS variables, so that one chart fits light and dark pages.
Nothing in the output points outside the page.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from msfl_common.metrics.registry import ALL_METRICS
from msfl_server.results.between_sites import BetweenSites
from msfl_server.results.summary import MetricSummary

# Okabe and Ito's colours, told apart by colour-blind readers and legible on white and on black.
SITE_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#D55E00", "#8C8CD9", "#B0A030")
MANY_SITES_COLOUR = "#9AA5AF"
REFERENCE_COLOUR = "#FFB000"
PREDICTION_COLOUR = "#38BDF8"

INK, LINE, ACCENT = "#010203", "#040506", "#070809"
_CSS = {INK: "currentColor", LINE: "var(--line)", ACCENT: "var(--accent)"}
_PRINTED = {"currentColor": "#17212b", "var(--line)": "#dde3e9", "var(--accent)": "#0b6e99"}  # those of a light page
NO_INTERVAL, TOO_FEW = "no interval", "too few patients for an interval"
STYLE: Any = {
    "axes.edgecolor": LINE,
    "axes.labelcolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 9,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "text.parse_math": False,  # names of studies and sites are no formulas
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "svg.hashsalt": "msfl",
}


@dataclass(frozen=True)
class Overlay:
    """One slice with two outlines.

    Attributes:
        site: the virtual site it comes from.
        caption: what is shown, in a few words.
        image_HW: FLAIR intensities, any scale; anterior in row 0, the patient's left in the last column.
        reference_HW: the manual mask of the slice, boolean.
        prediction_HW: the predicted mask of the slice, boolean.
    """

    site: str
    caption: str
    image_HW: NDArray[np.floating[Any]]
    reference_HW: NDArray[np.bool_]
    prediction_HW: NDArray[np.bool_]


def learning_curve(name: str, pooled: Mapping[int, float], per_site: Mapping[str, Mapping[int, float]]) -> str:
    """A quantity over rounds as inline SVG: the pooled one bold, each site thin.

    Args:
        name: prefix of the SVG's ids, different for each chart of a page.
        pooled: round to value.
        per_site: site name to its values, coloured by `site_colours`.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.7, 2.5), layout="constrained")
        axes = figure.add_subplot()
        dots = "o" if len(pooled) <= 30 else None
        single = dots if len(pooled) == 1 else None
        for values, colour in zip(per_site.values(), site_colours(len(per_site)), strict=True):
            axes.plot(list(values), list(values.values()), color=colour, linewidth=1.1, marker=single, markersize=3)
        axes.plot(list(pooled), list(pooled.values()), color=ACCENT, linewidth=2.6, marker=dots, markersize=3.6)
        axes.set_xlabel("Round")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
        axes.grid(visible=False, axis="x")
        return inline_svg(figure, name)


def forest_plot(
    name: str, metric: MetricSummary, mean_of: str | None = None, analysis: BetweenSites | None = None
) -> str:
    """A metric site by site with 95% intervals, and its means over cases and over sites, as inline SVG.

    Where rows are something else than sites, `mean_of` names their mean, and there is no other. A prediction interval
    of `analysis` is a line below its random-effects mean.
    """
    rows = list(metric.per_site.items())
    means = [] if analysis is None else [("Fixed effect", analysis.fixed), ("Random effects", analysis.random)]
    known = [(label, mean) for label, mean in means if mean is not None]
    low, high = (None, None) if analysis is None else (analysis.prediction_low, analysis.prediction_high)
    num_rows = len(rows) + 1 + len(known) + (low is not None)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.9, 0.8 + 0.32 * num_rows), layout="constrained")
        axes = figure.add_subplot()
        largest = max(site.num_cases for _, site in rows)
        for row, (_, site) in enumerate(rows):
            if site.ci95_low is not None and site.ci95_high is not None:
                axes.plot([site.ci95_low, site.ci95_high], [row, row], color=INK, linewidth=1.3)
            axes.plot(site.mean, row, "s", color=INK, markersize=4 + 5 * (site.num_cases / largest) ** 0.5)
            row_text(axes, row, site.mean, site.ci95_low, site.ci95_high)
        labels = [f"{site}  (n = {at_site.num_cases})" for site, at_site in rows]
        labels.append(mean_of or "Pooled over cases")
        diamond(axes, len(rows), metric.mean, metric.ci95_low, metric.ci95_high, filled=True)
        for label, mean in known:
            diamond(axes, len(labels), mean.mean, mean.ci95_low, mean.ci95_high, filled=False)
            labels.append(label)
        if low is not None and high is not None:
            prediction_line(axes, len(labels), low, high)
            labels.append("A further site")
        finish_forest(axes, labels, len(rows), metric.mean)
        axes.set_xlabel(axis_label(name))
        return inline_svg(figure, f"forest-{name}")


def finish_forest(axes: Axes, labels: Sequence[str], num_rows: int, mean: float) -> None:
    """Labels of a forest plot's rows, a line at the mean, and one below the rows that are no means."""
    axes.axvline(mean, color=ACCENT, linewidth=0.9, linestyle=(0, (4, 3)))
    axes.axhline(num_rows - 0.5, color=LINE, linewidth=1)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)


def prediction_line(axes: Axes, row: int, low: float, high: float, digits: int = 2) -> None:
    """Where a further site's, or study's, value lies: a broad line."""
    axes.plot([low, high], [row, row], color=ACCENT, linewidth=5, alpha=0.45, solid_capstyle="butt")
    axes.text(
        1.02, row, f"{low:.{digits}f} to {high:.{digits}f}", transform=axes.get_yaxis_transform(), va="center",
        fontsize=8.5,
    )  # fmt: skip


def overlay_png(overlay: Overlay) -> str:
    """A slice with both outlines as a `data:` URI of a PNG."""
    height, width = overlay.image_HW.shape
    figure = Figure(figsize=(3.4, 3.4 * height / width), dpi=180)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    low, high = np.percentile(overlay.image_HW, [1, 99.7])
    axes.imshow(overlay.image_HW, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), interpolation="bilinear")
    for mask_HW, colour, style in (
        (overlay.reference_HW, REFERENCE_COLOUR, "solid"),
        (overlay.prediction_HW, PREDICTION_COLOUR, "dashed"),
    ):
        if mask_HW.any():
            # A margin closes the outline of a lesion at the edge of the slice.
            padded = np.pad(mask_HW.astype(float), 1)
            rows, columns = np.arange(-1, height + 1), np.arange(-1, width + 1)
            axes.contour(columns, rows, padded, levels=[0.5], colors=colour, linewidths=1.3, linestyles=style)
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None}, facecolor="black")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def site_colours(num_sites: int) -> list[str]:
    """One colour a site; all grey where there are more sites than colours to tell apart."""
    if num_sites > len(SITE_COLOURS):
        return [MANY_SITES_COLOUR] * num_sites
    return list(SITE_COLOURS[:num_sites])


def axis_label(name: str) -> str:
    """A metric's title with its unit."""
    metric = ALL_METRICS[name]
    return f"{metric.title}, {metric.unit}" if metric.unit else metric.title


def format_value(name: str, value: float) -> str:
    """A metric's value: three decimals for a share, two for a volume or distance."""
    return f"{value:.2f}" if ALL_METRICS[name].unit else f"{value:.3f}"


def format_interval(name: str, low: float | None, high: float | None) -> str:
    """An interval as `0.612 to 0.701`, or why there is none."""
    if low is None or high is None:
        return NO_INTERVAL if ALL_METRICS[name].spread == "none" else TOO_FEW
    return f"{format_value(name, low)} to {format_value(name, high)}"


def diamond(
    axes: Axes, row: int, mean: float, low: float | None, high: float | None, *, filled: bool, digits: int = 2
) -> None:
    """A mean with its interval."""
    left, right = (mean, mean) if low is None or high is None else (low, high)
    corners: Sequence[tuple[float, float]] = [(left, row), (mean, row - 0.28), (right, row), (mean, row + 0.28)]
    x, y = zip(*corners, strict=True)
    axes.fill(x, y, facecolor=ACCENT if filled else "none", edgecolor=ACCENT, linewidth=1.6)
    row_text(axes, row, mean, low, high, digits=digits)


def row_text(axes: Axes, row: int, mean: float, low: float | None, high: float | None, *, digits: int = 2) -> None:
    """A row's figures, to the right of it."""
    text = f"{mean:.{digits}f}"
    if low is not None and high is not None:
        text += f"  ({low:.{digits}f} to {high:.{digits}f})"
    axes.text(1.02, row, text, transform=axes.get_yaxis_transform(), va="center", fontsize=8.5)


def inline_svg(figure: Figure, name: str) -> str:
    """The figure as an `<svg>` for inside HTML: page colours, its own ids, no XML header and no address."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    view_box = re.search(r'viewBox="[^"]*"', svg)
    assert view_box is not None
    # Of the opening tag only the view box stays: the page sets the size, and HTML needs no name spaces.
    svg = f'<svg {view_box.group()} aria-hidden="true" focusable="false">' + svg[svg.index(">") + 1 :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = svg.replace(' id="', f' id="{name}-')
    svg = svg.replace('href="#', f'href="#{name}-').replace("url(#", f"url(#{name}-")
    for stand_in, css in _CSS.items():
        svg = svg.replace(stand_in, css)
    return svg


def standalone_svg(inline: str) -> str:
    """What `inline_svg` gave as a file that needs no page: colours of a light one, on white."""
    _, opening, content = re.split(r"(<svg[^>]*>)", inline, maxsplit=1)
    view_box = re.search(r'viewBox="([^"]*)"', opening)
    assert view_box is not None
    width, height = view_box.group(1).split()[2:]
    for css, colour in _PRINTED.items():
        content = content.replace(css, colour)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{width}pt" height="{height}pt" {view_box.group()} color="#17212b" stroke-linejoin="round">\n'
        f'<rect width="100%" height="100%" fill="#ffffff"/>{content}'
    )
