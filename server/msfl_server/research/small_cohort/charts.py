"""Charts of a run of pipelines, as inline SVG in the page's colours."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from msfl_server.report.charts import ACCENT, INK, LINE, SITE_COLOURS, STYLE, inline_svg
from msfl_server.research.small_cohort.results import PipelineResults, Row, Scored
from msfl_server.research.small_cohort.space import Pipeline

STEPS: Mapping[str, str] = {
    "row": "Row scaling",
    "column": "Column scaling",
    "features": "Selection",
    "reduction": "Reduction",
}


def estimates_chart(results: PipelineResults, best: Mapping[str, Row]) -> str:
    """For each classifier: its best pipeline, what to expect of choosing one, and chance; with 95% intervals."""
    nested = {one.classifier: one.scored for one in results.nested}
    names = list(best)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.6, 1.0 + 0.42 * len(names)), layout="constrained")
        axes = figure.add_subplot()
        for row, name in enumerate(names):
            _whisker(axes, row - 0.2, best[name].scored, INK, "s")
            _whisker(axes, row + 0.05, nested[name], ACCENT, "D")
            if chance := best[name].chance:
                low, high = chance.mean - 1.96 * chance.deviation, chance.mean + 1.96 * chance.deviation
                axes.plot([low, high], [row + 0.28] * 2, color=SITE_COLOURS[0], linewidth=3, alpha=0.6)
        for colour, marker, label in ((INK, "s", "best of all"), (ACCENT, "D", "nested")):
            axes.plot([], [], marker, color=colour, label=label)
        axes.plot([], [], color=SITE_COLOURS[0], linewidth=3, alpha=0.6, label="permuted labels")
        axes.legend(frameon=False, fontsize=8.5, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlim(0, 1.02)
        axes.set_xlabel("accuracy of left-out cases")
        axes.grid(visible=False, axis="y")
        return inline_svg(figure, "pipelines-estimates")


def options_chart(step: str, rows: Sequence[Row]) -> str:
    """Accuracy of all pipelines by the options of a step, over all classifiers: quartiles, and whiskers to the ends."""
    values: dict[str, list[float]] = {}
    for row in rows:
        values.setdefault(_option(row.pipeline, step), []).append(row.scored.metrics["accuracy"])
    names = sorted(values, key=_order)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.7, 0.9 + 0.3 * max(len(names), 3)), layout="constrained")
        axes = figure.add_subplot()
        axes.boxplot(
            [values[name] for name in names],
            orientation="horizontal",
            whis=(0, 100),
            widths=0.55,
            boxprops={"color": INK},
            whiskerprops={"color": INK},
            capprops={"color": INK},
            medianprops={"color": ACCENT, "linewidth": 2.4},
        )
        axes.set_yticks(range(1, len(names) + 1), names)
        axes.invert_yaxis()
        axes.set_xlim(0, 1.02)
        axes.set_xlabel("accuracy")
        axes.grid(visible=False, axis="y")
        return inline_svg(figure, f"pipelines-{step}")


def chance_chart(rows: Sequence[Row]) -> str:
    """Accuracy and z-score of the pipelines that were tested by permutations, coloured by classifier."""
    tested = [(row, row.chance.z) for row in rows if row.chance is not None and row.chance.z is not None]
    names = list(dict.fromkeys(row.classifier for row, _ in tested))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.6, 3.6 + 0.2 * math.ceil(len(names) / 3)), layout="constrained")
        axes = figure.add_subplot()
        for number, name in enumerate(names):
            points = [(row.scored.metrics["accuracy"], z) for row, z in tested if row.classifier == name]
            colour, marker = SITE_COLOURS[number % len(SITE_COLOURS)], "oD"[number // len(SITE_COLOURS) % 2]
            axes.plot(*zip(*points, strict=True), marker, color=colour, markersize=5, alpha=0.8, label=name)
        axes.axhline(1.96, color=LINE, linewidth=1.4, linestyle=(0, (4, 3)))
        axes.set_xlabel("accuracy of left-out cases")
        axes.set_ylabel("z against permuted labels")
        figure.legend(frameon=False, fontsize=8, loc="outside upper center", ncols=3)
        return inline_svg(figure, "pipelines-chance")


def _whisker(axes: Axes, row: float, scored: Scored, colour: str, marker: str) -> None:
    axes.plot([scored.low, scored.high], [row, row], color=colour, linewidth=1.5)
    axes.plot(scored.metrics["accuracy"], row, marker, color=colour, markersize=6)


def _option(pipeline: Pipeline, step: str) -> str:
    return str(getattr(pipeline, step))


def _order(name: str) -> tuple[bool, str, int]:
    kind, _, count = name.rpartition("-")
    return name != "none", kind or name, int(count) if count.isdecimal() else 0
