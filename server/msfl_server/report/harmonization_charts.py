"""The report's charts of a harmonization: can the scanner still be told, and are age and outcome still there?"""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.figure import Figure

from msfl_server.report.charts import ACCENT, INK, STYLE, inline_svg
from msfl_server.results.harmonization_effect import Association, ScannerPredictability


def predictability_chart(results: Sequence[ScannerPredictability]) -> str:
    """Balanced accuracy of telling the scanner before and after, with 95% intervals and chance, as inline SVG."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.7, 3.4), layout="constrained")
        axes = figure.add_subplot()
        for row, result in enumerate(results):
            for offset, interval, colour in ((-0.14, result.before, INK), (0.14, result.after, ACCENT)):
                axes.plot([interval.low, interval.high], [row + offset] * 2, color=colour, linewidth=1.6)
                axes.plot(interval.value, row + offset, "o", color=colour, markersize=6)
        chance = results[0].chance
        axes.axvline(chance, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
        axes.text(chance, -0.55, " chance", fontsize=8.5)
        axes.plot([], [], "o", color=INK, label="before")
        axes.plot([], [], "o", color=ACCENT, label="after")
        axes.legend(frameon=False, loc="upper right", fontsize=8.5)
        axes.set_yticks(range(len(results)), [result.classifier.replace(" ", "\n") for result in results])
        axes.set_ylim(len(results) - 0.5, -0.75)
        axes.set_xlim(0, 1.02)
        axes.set_xlabel("balanced accuracy, unseen patients")
        axes.grid(visible=False, axis="y")
        return inline_svg(figure, "harmonization-scanner")


def association_chart(name: str, label: str, associations: Sequence[Association]) -> str:
    """Each feature's association before and after, against the one within scanners, as inline SVG.

    Args:
        name: prefix of the SVG's ids, different for each chart of a page.
        label: what is associated, with its unit.
        associations: one for each feature.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.7, 3.4), layout="constrained")
        axes = figure.add_subplot()
        within = [association.within for association in associations]
        axes.plot(
            within, [association.before for association in associations], "o", color=INK, markersize=3.5, alpha=0.6
        )
        axes.plot(within, [association.after for association in associations], "o", color=ACCENT, markersize=4.5)
        low, high = min(within), max(within)
        axes.plot([low, high], [low, high], color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
        axes.plot([], [], "o", color=INK, alpha=0.6, label="before")
        axes.plot([], [], "o", color=ACCENT, label="after")
        axes.legend(frameon=False, fontsize=8.5)
        axes.set_xlabel(f"within scanners: {label}")
        axes.set_ylabel("over all cases")
        return inline_svg(figure, name)
