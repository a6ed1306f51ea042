"""A cross-validation for people: one offline page, and a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from rich.console import Console
from rich.table import Table

from msfl_common.config.study import StudyConfig
from msfl_common.metrics.registry import ALL_METRICS, HEADLINE
from msfl_common.secure_aggregation.layout import POOLED
from msfl_common.system.files import write_text
from msfl_server.report.charts import axis_label, forest_plot, format_interval, format_value
from msfl_server.report.page import REPORT_FILE
from msfl_server.report.shell import render
from msfl_server.research.cross_validation.results import CrossValidation, FoldMetric, FoldResult, OverFolds
from msfl_server.results.chosen import FEW_PATIENTS
from msfl_server.results.few_patients import counted
from msfl_server.results.settings import flat_settings
from msfl_server.results.summary import MetricSummary, SiteMetric

PAGE_FILE = "cross-validation.html"
_WITHHELD = "withheld"


def render_table(results: CrossValidation, console: Console) -> None:
    """Print the main metrics of each fold, their mean with its interval, and their range."""
    names = _main(results)
    table = Table(
        title=f"{results.study}: {_kind(results)}",
        caption="means over test cases with 95% CIs; that of the mean over folds leaves out how models vary with "
        "their training patients",
    )
    table.add_column("Fold")
    for heading in ("Sites", "Cases", *(ALL_METRICS[name].title for name in names)):
        table.add_column(heading, justify="right")
    for fold in results.folds:
        figures = [_two_lines(name, fold.metrics.get(name)) for name in names]
        table.add_row(_label(fold), _sites(fold), str(fold.num_cases), *figures)
    table.add_section()
    num_cases = str(sum(fold.num_cases for fold in results.folds))
    table.add_row("mean", "", num_cases, *(_two_lines(name, results.metrics[name]) for name in names))
    table.add_row("range", "", "", *(_range(name, results.metrics[name]) for name in names))
    if any(results.metrics[name].withheld for name in names):
        table.add_row("folds that told it", "", "", *(_told(results, name) for name in names))
    console.print(table)
    for line in (*_together(results), *_few(results), *_silent(results.folds)):
        console.print(line)


def write_page(out: Path, results: CrossValidation, study: StudyConfig) -> Path:
    """Write `out/cross-validation.html`, which needs nothing but a browser, and the folds' own reports beside it.

    Args:
        out: folder of the folds.
        results: what is shown.
        study: the settings to list, without a fold.
    """
    names = _main(results)
    page = render(
        "cross_validation.html.j2",
        results=results,
        kind=_kind(results),
        tiles=_tiles(results, names),
        titles=[ALL_METRICS[name].title for name in names],
        folds=[_fold(fold, names) for fold in results.folds],
        mean=[_figure(name, results.metrics[name]) for name in names],
        silent=[*_together(results), *_few(results), *_silent(results.folds)],
        forests=[_forest(name, results) for name in names],
        rows=[_row(name, results) for name in ALL_METRICS if name in results.metrics or name in results.together],
        settings=flat_settings(study),
    )
    path = out / PAGE_FILE
    write_text(path, page)
    return path


def _main(results: CrossValidation) -> list[str]:
    return [name for names in HEADLINE.values() for name in names if name in results.metrics]


def _kind(results: CrossValidation) -> str:
    num = len(results.folds)
    if results.kind == "own-cases":
        return f"{num} folds, each site holds out its own cases"
    return f"{num} folds, one site left out whole in each"


def _label(fold: FoldResult) -> str:
    return fold.left_out or fold.name


def _sites(fold: FoldResult) -> str:
    if POOLED in fold.sites:
        return "a sum"
    return f"{len(fold.sites)} of {len(fold.sites) + len(fold.withheld)}"


def _figure(name: str, metric: FoldMetric | OverFolds | None) -> str:
    if metric is None:
        return _WITHHELD
    return f"{format_value(name, metric.mean)} ({format_interval(name, metric.ci95_low, metric.ci95_high)})"


def _two_lines(name: str, metric: FoldMetric | OverFolds | None) -> str:
    """As `_figure`, for a narrow terminal."""
    return _figure(name, metric).replace(" (", "\n").removesuffix(")")


def _range(name: str, metric: OverFolds) -> str:
    return f"{format_value(name, metric.smallest.value)} to {format_value(name, metric.largest.value)}"


def _told(results: CrossValidation, name: str) -> str:
    return f"{results.metrics[name].num_folds} of {len(results.folds)}"


def _together(results: CrossValidation) -> list[str]:
    """The main metrics of all folds' test patients together, where some fold withholds one, in one line."""
    names = [name for names in HEADLINE.values() for name in names if name in results.together]
    lacking = [name for name in names if name not in results.metrics or results.metrics[name].withheld]
    if not lacking:
        return []
    told = "; ".join(
        f"{ALL_METRICS[name].title} {_figure(name, one)} at {one.num_sites} site{'s' * (one.num_sites != 1)}"
        for name, one in ((name, results.together[name]) for name in lacking)
    )
    return [f"All folds' test patients together, each scored by the model that did not train on him: {told}."]


def _silent(folds: Sequence[FoldResult]) -> list[str]:
    """Who was asked to test and told nothing, fold by fold."""
    return [f"{fold.name}: nothing told by {', '.join(fold.withheld)}" for fold in folds if fold.withheld]


def _few(results: CrossValidation) -> list[str]:
    """Which of the main metrics rest on few patients, in one line."""
    behind = {name: results.metrics[name].num_patients for name in _main(results)}
    few = {name: count for name, count in behind.items() if count is not None and count < FEW_PATIENTS}
    told = "; ".join(f"{ALL_METRICS[name].title}: {counted(name, count)}" for name, count in few.items())
    return [f"From few patients, others may give quite other figures: {told}."] if few else []


def _few_note(name: str, results: CrossValidation) -> str:
    """On a tile, how few patients or folds a figure is of; empty where they are not few."""
    metric, few = results.metrics[name], []
    if metric.num_patients is not None and metric.num_patients < FEW_PATIENTS:
        few.append(f"from {counted(name, metric.num_patients)}")
    if metric.num_folds < len(results.folds):
        few.append(f"in {metric.num_folds} of {len(results.folds)} folds")
    return f"; {', '.join(few)}" if few else ""


def _tiles(results: CrossValidation, names: Sequence[str]) -> list[dict[str, str]]:
    tiles = [
        {
            "label": f"{ALL_METRICS[name].title}, mean",
            "value": format_value(name, metric.mean),
            "note": f"95% CI {format_interval(name, metric.ci95_low, metric.ci95_high)}; "
            f"folds {format_value(name, metric.smallest.value)} to {format_value(name, metric.largest.value)}"
            f"{_few_note(name, results)}",
        }
        for name, metric in ((name, results.metrics[name]) for name in names)
    ]
    sites = {site for fold in results.folds for site in fold.sites}
    num_cases = sum(fold.num_cases for fold in results.folds)
    of = "all sites, as sums under masks" if POOLED in sites else f"{len(sites)} sites"
    return [*tiles, {"label": "Tested", "value": str(num_cases), "note": f"cases of {of}, each once"}]


def _fold(fold: FoldResult, names: Sequence[str]) -> dict[str, Any]:
    return {
        "label": _label(fold),
        "link": f"{fold.name}/{REPORT_FILE}",
        "sites": _sites(fold),
        "num_cases": fold.num_cases,
        "rounds": fold.rounds_completed,
        "figures": [_figure(name, fold.metrics.get(name)) for name in names],
    }


def _forest(name: str, results: CrossValidation) -> dict[str, Any]:
    """A metric fold by fold, drawn as the reports of runs draw it site by site."""
    over = results.metrics[name]
    disclosed = {_label(fold): fold.metrics[name] for fold in results.folds if name in fold.metrics}
    rows = {
        label: SiteMetric(
            mean=metric.mean, ci95_low=metric.ci95_low, ci95_high=metric.ci95_high, num_cases=metric.num_cases
        )
        for label, metric in disclosed.items()
    }
    metric = MetricSummary(mean=over.mean, ci95_low=over.ci95_low, ci95_high=over.ci95_high, per_site=rows)
    title = ALL_METRICS[name].title
    alt = f"{title} in {len(rows)} folds, from {_range(name, over)}; mean {_figure(name, over)}."
    return {"title": title, "alt": alt, "svg": Markup(forest_plot(name, metric, "Mean over folds"))}


def _row(name: str, results: CrossValidation) -> dict[str, str]:
    metric = results.metrics.get(name)
    row = {"title": axis_label(name), "together": _figure(name, results.together.get(name)) if results.together else ""}
    if metric is None:
        return row | dict.fromkeys(("mean", "interval", "smallest", "largest"), _WITHHELD) | {"folds": "none"}
    return row | {
        "mean": format_value(name, metric.mean),
        "interval": format_interval(name, metric.ci95_low, metric.ci95_high),
        "folds": _told(results, name),
        "smallest": f"{format_value(name, metric.smallest.value)} ({metric.smallest.fold})",
        "largest": f"{format_value(name, metric.largest.value)} ({metric.largest.fold})",
    }
