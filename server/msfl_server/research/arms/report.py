"""A comparison for people: one offline page, and tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from rich.console import Console
from rich.table import Table

from msfl_common.config.study import StudyConfig
from msfl_common.metrics.registry import ALL_METRICS
from msfl_common.system.files import write_text
from msfl_common.system.words import counted
from msfl_server.report.charts import format_interval, format_value
from msfl_server.report.shell import render
from msfl_server.research.arms.charts import arms_by_site, gains_by_site
from msfl_server.research.arms.plan import CENTRALISED, LOCAL
from msfl_server.research.arms.results import ArmDifference, ArmsResult, ArmValue
from msfl_server.research.arms.verdict import arm_title, best_arm, change, gain
from msfl_server.results.settings import flat_settings

PAGE_FILE = "comparison.html"
_MEAN = "mean over sites"
BASIS = (
    "Means over seeds; the mean over sites counts each site the same. Intervals (95%) are over patients, each with all "
    "visits and seeds, the same resample through both arms (paired bootstrap); none of fewer than six patients. p is "
    "corrected by Holm for all differences here."
)


def render_tables(results: ArmsResult, console: Console) -> None:
    """Print the arms at each site, what they differ by, and what it says."""
    title = ALL_METRICS[results.metric].title
    table = Table(title=f"{results.study}: {title}, {counted(len(results.seeds), 'seed')}", caption=BASIS)
    table.add_column("arm")
    for site in _places(results):
        table.add_column(site or _MEAN, justify="right")
    for arm in _arms(results):
        table.add_row(arm, *(_two_lines(results, results.value(arm, site)) for site in _places(results)))
    console.print(table)
    _print_differences(results, console)
    if results.attacks:
        table = Table(f"{results.attack} at {', '.join(results.attacked)}", title="At the sites not attacked")
        for heading in ("without", "with", "by", "95% CI"):
            table.add_column(heading, justify="right")
        for one in _attacked(results):
            table.add_row(*one.values())
        console.print(table)
    for line in results.verdict:
        console.print(line, soft_wrap=True)
    for line in _missing(results):
        console.print(line, style="yellow", soft_wrap=True)


def _print_differences(results: ArmsResult, console: Console) -> None:
    table = Table("difference", "where")
    for heading in ("by", "95% CI", "p, Holm", "patients"):
        table.add_column(heading, justify="right")
    for row in _rows(results):
        table.add_row(row["what"], row["where"], row["by"], row["interval"], row["p"], row["patients"])
    console.print(table)


def write_page(out: Path, results: ArmsResult, study: StudyConfig) -> Path:
    """Write `out/comparison.html`, which needs nothing but a browser.

    Args:
        out: folder of the comparison.
        results: what is shown.
        study: its settings, as they were given.
    """
    name = ALL_METRICS[results.metric].title
    has_overall = [arm for arm in _arms(results) if results.value(arm, None) is not None]
    page = render(
        "arms.html.j2",
        results=results,
        metric=name,
        tiles=_tiles(results),
        arms=[_arm(results, arm) for arm in _arms(results)],
        places=[site or _MEAN for site in _places(results)],
        charts=list(_charts(results, name)) if has_overall else [],
        rows=list(_rows(results)),
        cross=list(_cross(results)),
        others=list(_others(results)),
        attacked=list(_attacked(results)),
        attack=f"{results.attack} at {', '.join(results.attacked)}",
        has_test=study.has_test,
        basis=BASIS,
        how=describe(results),
        missing=list(_missing(results)),
        settings=flat_settings(study),
    )
    path = out / PAGE_FILE
    write_text(path, page)
    return path


def _missing(results: ArmsResult) -> Iterator[str]:
    """What there are no figures of, and why."""
    yield from (f"not trained: {name}: {why}" for name, why in results.failed.items())
    yield from (f"not measured: {name}: {why}" for name, why in results.unmeasured.items())


def _arms(results: ArmsResult) -> tuple[str, ...]:
    return (LOCAL, CENTRALISED, *results.federated)


def _places(results: ArmsResult) -> tuple[str | None, ...]:
    return (*results.sites, None)


def _tiles(results: ArmsResult) -> list[dict[str, str]]:
    """Whether taking part pays, for how many, and how near it comes to all patients in one place."""
    arm = best_arm(results)
    if arm is None:
        return []
    tiles = []
    here, pays = results.value(arm, None), results.difference(arm, LOCAL, None)
    assert here is not None
    name = ALL_METRICS[results.metric].title
    if pays is not None:
        at = [results.difference(arm, LOCAL, site) for site in results.sites]
        better = sum(one is not None and gain(results, one) > 0 for one in at)
        has_interval = pays.ci95_low is not None
        interval = format_interval(results.metric, pays.ci95_low, pays.ci95_high)
        note = f"95% CI {interval}" if has_interval else interval
        tiles.append({"label": f"{name} gained by taking part", "value": _signed(results, pays), "note": note})
        tiles.append({"label": "Sites better off", "value": f"{better} of {len(at)}", "note": f"with {arm_title(arm)}"})
    tiles.append({"label": f"{name}, {arm}", "value": format_value(results.metric, here.value), "note": _MEAN})
    for other, label in ((LOCAL, "sites by themselves"), (CENTRALISED, "all patients in one place")):
        if (value := results.value(other, None)) is not None:
            tiles.append(
                {"label": label.capitalize(), "value": format_value(results.metric, value.value), "note": _MEAN}
            )
    return tiles


def _arm(results: ArmsResult, arm: str) -> dict[str, Any]:
    return {
        "title": arm_title(arm),
        "figures": [_figure(results, results.value(arm, site)) for site in _places(results)],
    }


def _charts(results: ArmsResult, name: str) -> Iterator[dict[str, Any]]:
    rows = [one.model_dump(include={"arm", "site", "value", "ci95_low", "ci95_high"}) for one in results.values]
    yield {
        "title": f"{name} of each arm at each site",
        "alt": f"{name} of each arm at each site, with 95% intervals; the table below has the figures",
        "svg": Markup(arms_by_site(results)),
        "rows": rows,
    }
    if any(one.against == LOCAL for one in results.differences):
        yield {
            "title": "What each site gains over its own model",
            "alt": "differences of each federated arm from the site's own model; the table below has the figures",
            "svg": Markup(gains_by_site(results)),
            "note": "Right of the line: better than what the site trains alone.",
        }


def _rows(results: ArmsResult) -> Iterator[dict[str, str]]:
    for one in results.differences:
        yield {
            "what": _what(results, one),
            "where": one.site or _MEAN,
            "by": _signed(results, one),
            "interval": format_interval(results.metric, one.ci95_low, one.ci95_high),
            "p": "-" if one.p_holm is None else "<0.001" if one.p_holm < 0.001 else f"{one.p_holm:.3f}",
            "patients": str(one.num_patients),
        }


def _what(results: ArmsResult, one: ArmDifference) -> str:
    if one.kind == "without":
        return f"{one.arm} less {one.arm} without the site"
    if one.kind == "attacked":
        return f"{one.arm} under {results.attack} less without"
    return f"{one.arm} less {one.against}"


def _cross(results: ArmsResult) -> Iterator[dict[str, Any]]:
    models = dict.fromkeys(one.model for one in results.cross_site)
    values = {(one.model, one.site): one.value for one in results.cross_site}
    for model in models:
        cells = [values.get((model, site)) for site in results.sites]
        yield {
            "model": model,
            "cells": ["" if one is None else format_value(results.metric, one) for one in cells],
            "own": [model == f"{LOCAL} {site}" for site in results.sites],
        }


def _attacked(results: ArmsResult) -> Iterator[dict[str, str]]:
    """Each federated arm with and without the attack, at the sites that are not attacked."""
    for one in results.attacks:
        change = results.difference(one.arm, one.arm, None, "attacked")
        yield {
            "arm": arm_title(one.arm),
            "clean": "not measured" if one.clean is None else format_value(results.metric, one.clean),
            "attacked": "no model" if one.attacked is None else format_value(results.metric, one.attacked),
            "by": "" if change is None else _signed(results, change),
            "interval": "" if change is None else format_interval(results.metric, change.ci95_low, change.ci95_high),
        }


def _others(results: ArmsResult) -> Iterator[dict[str, Any]]:
    """The other headline metrics, in the mean over sites."""
    names = dict.fromkeys(one.metric for one in results.values if one.metric != results.metric)
    for name in names:
        found = {one.arm: one for one in results.values if one.metric == name and one.site is None}
        figures = [format_value(name, found[arm].value) if arm in found else "" for arm in _arms(results)]
        yield {"title": ALL_METRICS[name].title, "figures": figures}


def _signed(results: ArmsResult, one: ArmDifference) -> str:
    return change(results, one.difference)


def _figure(results: ArmsResult, one: ArmValue | None) -> str:
    if one is None:
        return "not measured"
    value = format_value(results.metric, one.value)
    if one.ci95_low is None:
        return value
    return f"{value} ({format_interval(results.metric, one.ci95_low, one.ci95_high)})"


def _two_lines(results: ArmsResult, one: ArmValue | None) -> str:
    return _figure(results, one).replace(" (", "\n").removesuffix(")")


def describe(results: ArmsResult) -> Sequence[str]:
    """How the arms were matched, for page and documents."""
    if results.steps is None:
        return ("A model of features has no optimiser steps: each arm computes it from the same training patients.",)
    extra = {"ditto": "as many again, for the sites' own models", "finetune": "its own rounds besides, at each site"}
    return (
        *(f"{kind} takes {more}." for kind, more in extra.items() if kind in results.federated),
        f"Every arm takes {results.steps} optimiser steps for each seed: a federation spreads them evenly over sites, "
        "local-only takes each site's share at the site, centralised takes all of them with one model.",
    )
