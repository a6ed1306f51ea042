"""A run of pipelines for people: one offline page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from msfl_common.system.files import write_text
from msfl_server.report.shell import render
from msfl_server.research.small_cohort.charts import STEPS, chance_chart, estimates_chart, options_chart
from msfl_server.research.small_cohort.classifiers import CLASSIFIERS
from msfl_server.research.small_cohort.measures import Chance, Effect
from msfl_server.research.small_cohort.results import Nested, PipelineResults, Row, Scored
from msfl_server.research.small_cohort.space import Pipeline

PAGE_FILE = "report.html"
_STARS = ((0.001, "***"), (0.01, "**"), (0.05, "*"))


def write_page(out: Path, results: PipelineResults, document: Mapping[str, Any]) -> Path:
    """Write `out/report.html`, which needs nothing but a browser.

    Args:
        out: folder of the run.
        results: what is shown.
        document: of `results_document`: counts and settings.
    """
    names = list(results.effects)
    best = {name: results.best_of(name, 1)[0] for name in names}
    nested = {one.classifier: one for one in results.nested}
    page = render(
        "pipelines.html.j2",
        document=document,
        tiles=_tiles(results, document),
        estimates=_chart("Best and nested estimate", _estimates_alt(best, nested), estimates_chart(results, best)),
        best=[_row(row) for row in results.best],
        classifiers=[_classifier(name, best[name], nested[name], results) for name in names],
        together=_nested(nested["all"]),
        charts=[
            _chart(
                title,
                f"Accuracy of all pipelines by {title.lower()}; the table below has the changes.",
                options_chart(step, results.rows),
            )
            for step, title in STEPS.items()
            if document["pipelines"] > 1
        ],
        chance=_chance_chart(results.rows),
        names=names,
        effects=_effects(results),
        top=document["top"],
        weights=_weights(document["weights"]),
        tuned=_tuned(results),
        spaces=_spaces(names),
    )
    path = out / PAGE_FILE
    write_text(path, page)
    return path


def _chart(title: str, alt: str, svg: str) -> dict[str, Any]:
    return {"title": title, "alt": alt, "svg": Markup(svg)}


def _chance_chart(rows: Sequence[Row]) -> dict[str, Any] | None:
    if not any(row.chance and row.chance.z for row in rows):
        return None
    alt = "Accuracy and z-score of the pipelines that were tested by permutations."
    return _chart("Against permuted labels", alt, chance_chart(rows))


def _tiles(results: PipelineResults, document: Mapping[str, Any]) -> list[dict[str, str]]:
    top = results.best[0]
    expected = next(one.scored for one in results.nested if one.classifier == "all")
    patients = document["patients"]
    return [
        {
            "label": "Patients",
            "value": str(sum(patients.values())),
            "note": ", ".join(f"{count} {name}" for name, count in patients.items()),
        },
        {
            "label": "Pipelines",
            "value": f"{len(results.rows):,}",
            "note": f"{document['pipelines']} with each of {len(results.effects)} classifiers",
        },
        {"label": "Best of all", "value": _share(top.scored), "note": f"95% CI {_interval(top.scored)}; optimistic"},
        {
            "label": "Nested estimate",
            "value": _share(expected),
            "note": f"95% CI {_interval(expected)}; to be expected",
        },
    ]


def _row(row: Row) -> dict[str, str]:
    metrics = row.scored.metrics
    figures = {name: f"{metrics[name]:.3f}" for name in ("balanced_accuracy", "auroc", "f1")}
    return {
        "classifier": row.classifier,
        "pipeline": row.pipeline.name,
        "accuracy": _share(row.scored),
        "interval": _interval(row.scored),
        **figures,
        **_chance(row.chance),
    }


def _classifier(name: str, best: Row, nested: Nested, results: PipelineResults) -> dict[str, str]:
    rows = [row.scored.metrics["accuracy"] for row in results.rows if row.classifier == name]
    return {
        **_row(best),
        "median": f"{sorted(rows)[len(rows) // 2]:.3f}",
        "nested": f"{_share(nested.scored)} ({_interval(nested.scored)})",
        "stopped": f"{100 * results.stopped[name]:.0f}%",
        "seconds": f"{results.seconds[name]:.0f} s",
    }


def _nested(nested: Nested) -> dict[str, str]:
    chosen = "; ".join(f"{name} ({times} of 6)" for name, times in nested.chosen.items())
    return {"accuracy": _share(nested.scored), "interval": _interval(nested.scored), "chosen": chosen}


def _effects(results: PipelineResults) -> list[dict[str, Any]]:
    """Each option of each step, with a cell for each classifier."""
    columns = list(results.effects.values())
    return [
        {
            "step": first.step,
            "option": first.option,
            "pairs": first.num_pairs,
            "cells": [_effect(column[number]) for column in columns],
        }
        for number, first in enumerate(columns[0])
    ]


def _effect(effect: Effect) -> dict[str, Any]:
    stars = next((stars for limit, stars in _STARS if effect.p is not None and effect.p < limit), "")
    p = "all equal" if effect.p is None else f"p = {effect.p:.2g}" if effect.p >= 1e-4 else f"p = {effect.p:.0e}"
    strength = min(60.0, 400 * abs(effect.median)) if stars else 0.0
    colour = "#009E73" if effect.median > 0 else "#D55E00"
    return {
        "change": f"{100 * effect.median:+.1f}",
        "counts": f"{effect.num_better} better, {effect.num_worse} worse; r {effect.rank_biserial:+.2f}",
        "stars": stars,
        "p": p,
        "background": f"color-mix(in srgb, {colour} {strength:.0f}%, transparent)",
    }


def _tuned(results: PipelineResults) -> list[dict[str, str]]:
    return [
        {
            "classifier": one.classifier,
            "search": one.search,
            "pipelines": "; ".join(f"{name} ({count})" for name, count in one.pipelines.items()),
            "accuracy": _share(one.scored),
            "interval": _interval(one.scored),
            "auroc": f"{one.scored.metrics['auroc']:.3f}",
            **_chance(one.chance),
            "hyper": ", ".join(f"{key} {value:.3g}" for key, value in one.hyper.items()),
            "seconds": f"{one.seconds:.0f} s",
        }
        for name in results.effects
        for one in results.tuned
        if one.classifier == name
    ]


def _weights(told: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The ten largest weights of each linear classifier, and the shares of groups of features."""
    return [
        {
            "classifier": one["classifier"],
            "pipeline": Pipeline(**one["pipeline"]).name,
            "features": [
                {
                    "name": feature["feature"],
                    "weights": ", ".join(f"{label} {weight:+.3g}" for label, weight in feature["mean"].items()),
                    "used": f"{100 * feature['used']:.0f}%",
                }
                for feature in one["largest"][:10]
            ],
            "shares": ", ".join(f"{name} {100 * share:.0f}%" for name, share in one["shares"].items()),
        }
        for one in told
    ]


def _spaces(names: list[str]) -> list[tuple[str, str]]:
    """The ranges of a search in words."""
    told = []
    for name in names:
        ranges = CLASSIFIERS[name].ranges.items()
        parts = [f"{key} {one.low:g} to {one.high:g}, {one.steps} values{', log' * one.log}" for key, one in ranges]
        told.append((name, "; ".join(parts)))
    return told


def _estimates_alt(best: Mapping[str, Row], nested: Mapping[str, Nested]) -> str:
    told = "; ".join(
        f"{name} {_share(row.scored)} best, {_share(nested[name].scored)} nested" for name, row in best.items()
    )
    return f"Accuracy by classifier: {told}."


def _chance(chance: Chance | None) -> dict[str, str]:
    if chance is None:
        return {"z": "not tested", "p": "", "by_chance": ""}
    z = "n/a" if chance.z is None else f"{chance.z:.2f}"
    return {"z": z, "p": f"{chance.p:.3f}", "by_chance": f"{chance.mean:.3f}"}


def _share(scored: Scored) -> str:
    return f"{scored.metrics['accuracy']:.3f}"


def _interval(scored: Scored) -> str:
    return f"{scored.low:.2f} to {scored.high:.2f}"
