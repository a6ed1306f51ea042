"""A run's results for people: one offline page, and a table for the terminal."""

from __future__ import annotations

import math
import platform
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from msfl_common import __version__
from msfl_common.config.stages import SEGMENTATION_FOLDER, crossfit_note
from msfl_common.config.study import StudyConfig
from msfl_common.harmonization import Reference
from msfl_common.metrics.metric import OUTCOME_TASKS, Metric
from msfl_common.metrics.registry import ALL_METRICS, HEADLINE
from msfl_common.metrics.segmentation import is_native
from msfl_common.system.files import write_text
from msfl_common.system.words import counted as with_number
from msfl_server.report.charts import (
    PREDICTION_COLOUR,
    REFERENCE_COLOUR,
    Overlay,
    axis_label,
    format_interval,
    format_value,
    overlay_png,
)
from msfl_server.report.classification import classification_section
from msfl_server.report.figures import (
    curves,
    forest,
    is_compared,
    legend,
    metric_rows,
    not_compared,
    round_rows,
    without_each,
)
from msfl_server.report.harmonization import harmonization_section
from msfl_server.report.local_baselines import local_lines, local_section
from msfl_server.report.overview import exclusions, limits, plain_summary, what_left
from msfl_server.report.regression import regression_section
from msfl_server.report.shell import render
from msfl_server.results.compare_sites import compared
from msfl_server.results.few_patients import counted, say_few, say_sites
from msfl_server.results.harmonization_effect import HarmonizationEffect
from msfl_server.results.patients import whom
from msfl_server.results.settings import flat_settings
from msfl_server.results.summary import SUSPENDED, MetricSummary, Summary
from msfl_server.results.untold import untold_of

REPORT_FILE = "report.html"

_PACKAGES = ("flwr", "torch", "monai", "numpy", "scipy", "mlflow")

__all__ = ["Overlay", "render_table", "write_report"]


def write_report(
    out: Path,
    summary: Summary,
    study: StudyConfig,
    overlays: Sequence[Overlay] = (),
    reference: Reference | None = None,
    effect: HarmonizationEffect | None = None,
    segmentation: Summary | None = None,
) -> Path:
    """Write `out/report.html`, which needs nothing but a browser.

    Args:
        out: the run's folder.
        summary: the run's figures.
        study: the settings to list.
        overlays: example slices. They show images, so pass simulated or public cases only.
        reference: what features were harmonized to, in a study that did.
        effect: what that changed; known only where all cases are in one place.
        segmentation: the figures of the model of lesions that was trained first, in `out/segmentation`.

    Returns:
        The page's path.
    """
    summary = summary.model_copy(update={"metrics": compared(summary.task, summary.metrics)})  # of an earlier version
    page = render(
        "report.html.j2",
        summary=summary,
        headline=[_headline(name, metric, summary.num_sites) for name, metric in _in_order(summary)],
        few_patients=_few(summary),
        untold=untold_of(summary),
        masked=say_masked(summary),
        plain=plain_summary(summary, study),
        excluded=exclusions(summary),
        limits=limits(summary),
        left=what_left(out),
        tiles=_tiles(summary),
        curves=curves(summary) if summary.evaluated is None else [],
        legend=legend(summary),
        spacing_mm=study.inputs.spacing_mm,
        cases=_split(summary),
        forests=[forest(name, metric) for name, metric in _in_order(summary) if is_compared(summary, name, metric)],
        without_each=without_each(summary),
        not_compared=not_compared(summary),
        site_columns=[axis_label(name) for name, _ in _in_order(summary)],
        site_rows=_site_rows(summary),
        classification=classification_section(summary, study),
        regression=regression_section(summary, study),
        round_column=_round_column(summary),
        local=local_section(summary),
        harmonization=harmonization_section(reference, effect) if reference else None,
        segmentation=_segmentation(segmentation, study) if segmentation else None,
        overlays=[{"site": o.site, "caption": o.caption, "src": overlay_png(o)} for o in overlays],
        outline={"reference": REFERENCE_COLOUR, "prediction": PREDICTION_COLOUR},
        settings=flat_settings(study),
        metric_rows=metric_rows(summary),
        round_rows=round_rows(summary),
        versions=_versions(),
        duration=_duration,
    )
    path = out / REPORT_FILE
    write_text(path, page)
    return path


def render_table(summary: Summary, console: Console) -> None:
    """Print the headline figures as a table."""
    table = Table(
        title=f"{summary.study}: {summary.strategy}, {summary.rounds_in_words}, {summary.num_sites} sites",
        caption=f"mean over {_split(summary)}; better: ↑ higher, ↓ lower" + _targets(summary) + _grids(summary),
    )
    table.add_column("Metric")
    table.add_column("Mean", justify="right")
    table.add_column("95% CI", justify="right")
    table.add_column("Cases", justify="right")
    for row in (_headline(name, metric, summary.num_sites) for name, metric in _in_order(summary)):
        cases = "\n".join(filter(None, (str(row["num_cases"]), row["sites"])))
        table.add_row(f"{row['title']} {row['arrow']}".rstrip(), row["mean"], row["interval"], cases)
    if table.rows:
        console.print(table)
    else:
        console.print(f"{table.title}. No metric yet.")
    start = summary.started_from.sentence if summary.started_from else ""
    said = (start, say_masked(summary), summary.choice_in_words, _few(summary), *untold_of(summary))
    for line in filter(None, (*said, *local_lines(summary))):
        console.print(line)


def say_masked(summary: Summary) -> str:
    """One line where the sites' values were added up under masks; else empty."""
    if not summary.is_pooled:
        return ""
    return f"Sums of {with_number(summary.num_sites, 'site')} under masks: no site's own figures are known."


def _few(summary: Summary) -> str:
    return say_few(summary.few_patients, summary.metrics, summary.num_sites)


def _in_order(summary: Summary) -> list[tuple[str, MetricSummary]]:
    return [(name, summary.metrics[name]) for name in ALL_METRICS if name in summary.metrics]


def _headline(name: str, metric: MetricSummary, num_sites: int) -> dict[str, Any]:
    facts = ALL_METRICS[name]
    bar = None
    if math.isfinite(facts.upper):
        low = metric.mean if metric.ci95_low is None else metric.ci95_low
        high = metric.mean if metric.ci95_high is None else metric.ci95_high
        bar = {"mean": 100 * metric.mean, "low": 100 * low, "width": 100 * (high - low)}
    return {
        "title": axis_label(name),
        **_direction(facts),
        "mean": format_value(name, metric.mean),
        "interval": format_interval(name, metric.ci95_low, metric.ci95_high),
        "num_cases": metric.num_cases,
        "sites": say_sites(metric, num_sites),
        "bar": bar,
    }


def _direction(facts: Metric) -> dict[str, str]:
    """An arrow, and what it means in words; empty where no value is better."""
    if facts.higher_is_better is None:
        target = "" if facts.target is None else f"{facts.target:g}"
        return {"arrow": target and f"→ {target}", "better": target and f"best at {target}"}
    up = facts.higher_is_better
    return {"arrow": "↑" if up else "↓", "better": "higher is better" if up else "lower is better"}


def _split(summary: Summary) -> str:
    """Whose cases the figures are of."""
    return "measured cases" if summary.evaluated is not None else f"cases of {whom(summary.split)}"


def _targets(summary: Summary) -> str:
    return ", → nearer" if summary.task in OUTCOME_TASKS else ""


def _grids(summary: Summary) -> str:
    if summary.task in OUTCOME_TASKS:
        return ""
    if not any(is_native(name) for name in summary.metrics):
        return "\nthe study's grid is the network's; figures on own grids come with the last round"
    return "\nthe study's grid is the network's; own grid: that of the manual mask, as in published figures"


def _round_column(summary: Summary) -> tuple[str, str]:
    """Name and title of the metric shown for each round: the first that a reader looks for and any round has."""
    titles = HEADLINE[summary.task] | {"dsc": "Dice, study's grid"}
    told = (name for name in HEADLINE[summary.task] if any(name in result.metrics for result in summary.history))
    name = next(told, next(iter(HEADLINE[summary.task])))
    return name, titles[name]


def _tiles(summary: Summary) -> list[dict[str, str]]:
    """The few figures at the top of the page."""
    tiles = []
    for name in HEADLINE[summary.task]:
        if metric := summary.metrics.get(name):
            interval = format_interval(name, metric.ci95_low, metric.ci95_high)
            chance = summary.metrics.get("prevalence") if name == "auprc" else None
            tiles.append(
                {
                    "label": ALL_METRICS[name].title,
                    "value": format_value(name, metric.mean),
                    "note": (interval if metric.ci95_low is None else f"95% CI {interval}")
                    + (f"; by chance {chance.mean:.3f}" if chance else "")
                    + _few_note(summary, name),
                }
            )
    tiles += [
        {
            "label": "Sites",
            "value": str(summary.num_sites),
            "note": _cases(summary),
        },
        {
            "label": "Rounds",
            "value": _rounds(summary),
            "note": _ended(summary)
            + f"{sum(bool(r.sites_failed) for r in summary.history)} with a site missing{_conduct(summary)}",
        },
        {
            "label": "Time",
            "value": _duration(summary.timing.total_s),
            "note": f"{_duration(summary.timing.train_s)} in training and validation",
        },
    ]
    return tiles


def _cases(summary: Summary) -> str:
    """How many trained and validated, and where the figures are of others, how many those are."""
    if summary.evaluated is not None:
        return f"{max((metric.num_cases for metric in summary.metrics.values()), default=0)} cases measured"
    train = sum(site.cases_train for site in summary.sites)
    parts = [f"{train} training", f"{sum(site.cases_val for site in summary.sites)} validation"]
    outcome = summary.classification or summary.regression
    if outcome is not None and summary.split == "test":
        parts.append(f"{sum(site.num_cases for site in outcome.sites.values())} test")
    elif summary.split == "test":
        parts.append(f"{max((metric.num_cases for metric in summary.metrics.values()), default=0)} test")
    return f"{', '.join(parts)} cases"


def _rounds(summary: Summary) -> str:
    if summary.is_finished and summary.rounds_completed < summary.rounds_requested:
        return str(summary.rounds_completed)
    return f"{summary.rounds_completed} of {summary.rounds_requested}"


def _ended(summary: Summary) -> str:
    if not summary.is_finished:
        return "not finished; "
    if summary.ended_early:
        return f"ended early; at most {summary.rounds_requested} were asked for; "
    if summary.rounds_completed < summary.rounds_requested:
        return f"the model was complete; at most {summary.rounds_requested} were asked for; "
    return ""


def _few_note(summary: Summary, name: str) -> str:
    """On a tile, how few patients and sites a figure is of; empty where they are not few."""
    count = summary.few_patients.get(name)
    few = [] if count is None else [f"from {counted(name, count)}"]
    few += filter(None, [say_sites(summary.metrics[name], summary.num_sites)])
    return f"; {', '.join(few)}" if few else ""


def _conduct(summary: Summary) -> str:
    """Sites that were suspended or stood out, and how often the model was set back; empty in an uneventful run."""
    names = sorted({failure.site for r in summary.history for failure in r.sites_failed if failure.code == SUSPENDED})
    back = sum(r.set_back_to is not None for r in summary.history)
    odd = Counter(site for record in summary.history for site in record.odd)
    stood_out = ", ".join(f"{site} ({with_number(times, 'round')})" for site, times in sorted(odd.items()))
    told = f"; updates that stood out, though they count: {stood_out}" if odd else ""
    return (f"; suspended: {', '.join(names)}" if names else "") + told + (f"; set back {back} times" if back else "")


def _site_rows(summary: Summary) -> list[dict[str, Any]]:
    """Every metric at every site."""
    rows = []
    for site in () if summary.is_pooled else summary.sites:
        cells = []
        for name, metric in _in_order(summary):
            at_site = metric.per_site.get(site.name)
            cells.append(format_value(name, at_site.mean) if at_site else "n/a")
        rows.append({"site": site, "cells": cells})
    return rows


def _segmentation(summary: Summary, study: StudyConfig) -> dict[str, str]:
    """What outlined the lesions that the features are of."""
    told = [(name, summary.metrics[name]) for name in HEADLINE[summary.task] if name in summary.metrics]
    figures = "; ".join(
        f"{ALL_METRICS[name].title} {format_value(name, metric.mean)} "
        f"({format_interval(name, metric.ci95_low, metric.ci95_high)})"
        for name, metric in told
    )
    return {
        "rounds": f"{summary.rounds_completed} rounds at {summary.num_sites} sites",
        "figures": figures or "no site reported a metric",
        "link": f"{SEGMENTATION_FOLDER}/{REPORT_FILE}",
        "crossfit": crossfit_note(study),
    }


def _versions() -> list[tuple[str, str]]:
    found = [("msfl", __version__), ("python", platform.python_version())]
    for package in _PACKAGES:
        try:
            found.append((package, version(package)))
        except PackageNotFoundError:
            continue
    return found


def _duration(seconds: float) -> str:
    """`42 s`, `4 min 20 s` or `3 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
