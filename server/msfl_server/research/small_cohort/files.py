"""The files of a run of pipelines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from msfl_common.dataset import Dataset
from msfl_common.system.files import write_json, write_text
from msfl_common.system.tab_separated import tsv_text
from msfl_server.research.small_cohort.folds import patient_classes
from msfl_server.research.small_cohort.measures import metric_names
from msfl_server.research.small_cohort.results import PipelineResults, Row, Scored
from msfl_server.research.small_cohort.setup import PipelineSettings
from msfl_server.research.small_cohort.top import (
    HIGHEST_ACCURACY,
    TOP_ACCURACY,
    TOP_Z,
    TopPerformers,
    top_performers,
)
from msfl_server.research.small_cohort.weights import Weights

RESULTS_FILE, TABLE_FILE, WEIGHTS_FILE = "pipelines.json", "pipelines.tsv", "weights.tsv"
LARGEST = 20  # weights that are shown of a classifier


def results_document(results: PipelineResults, cases: Dataset, settings: PipelineSettings) -> dict[str, Any]:
    """`pipelines.json`: all but the rows of pipelines that were not among a classifier's best."""
    patients = Counter(patient_classes(cases.labels_N, cases.patients).values())
    nested = {one.classifier: {**_told(one.scored), "chosen": dict(one.chosen)} for one in results.nested}
    return {
        "schema_version": 1,
        "study": settings.study,
        "cases": len(cases.patients),
        "patients": {name: patients[label] for label, name in enumerate(settings.classes)},
        "features": len(cases.names),
        "pipelines": len(results.rows) // len(settings.classifiers),
        "settings": {name: value for name, value in vars(settings).items() if name != "groups"},
        "best": [_row(row) for row in results.best],
        "nested": nested["all"],
        "classifiers": {
            name: {
                "best": [_row(row) for row in results.best_of(name, settings.best)],
                "nested": nested[name],
                "effects": [asdict(effect) for effect in results.effects[name]],
                "stopped_share": results.stopped[name],
                "cpu_seconds": round(results.seconds[name], 2),
            }
            for name in settings.classifiers
        },
        "top": top_document(top_performers([results])),
        "weights": [_weights(one, settings.groups) for one in results.weights],
        "tuned": [
            {
                "classifier": one.classifier,
                "search": one.search,
                **_told(one.scored),
                "pipelines": dict(one.pipelines),
                "hyperparameters_median": dict(one.hyper),
                "cpu_seconds": round(one.seconds, 2),
                "chance": asdict(one.chance) if one.chance else None,
            }
            for one in results.tuned
        ],
    }


def write_results(out: Path, results: PipelineResults, document: Mapping[str, Any]) -> None:
    """Write `pipelines.json`, `pipelines.tsv` with a line for every classifier and pipeline, and `weights.tsv`."""
    steps = ("row", "column", "selection", "num_selected", "reduction")
    columns = ["classifier", *steps, *metric_names(), "accuracy_low", "accuracy_high", "chance_accuracy", "z", "p"]
    lines: list[list[object]] = [[*columns]]
    for row in results.rows:
        chance = [row.chance.mean, row.chance.z, row.chance.p] if row.chance else [None] * 3
        figures = [*(row.scored.metrics[name] for name in metric_names()), row.scored.low, row.scored.high, *chance]
        told = ["n/a" if figure is None else f"{figure:.6g}" for figure in figures]
        lines.append([row.classifier, *(getattr(row.pipeline, step) for step in steps), *told])
    write_text(out / TABLE_FILE, tsv_text(lines))
    write_text(out / WEIGHTS_FILE, tsv_text(_weight_lines(results.weights)))
    write_json(out / RESULTS_FILE, document)


def _row(row: Row) -> dict[str, Any]:
    chance = asdict(row.chance) if row.chance else None
    return {"classifier": row.classifier, "pipeline": asdict(row.pipeline), **_told(row.scored), "chance": chance}


def _told(scored: Scored) -> dict[str, Any]:
    return {**scored.metrics, "accuracy_ci95": [scored.low, scored.high]}


def top_document(top: TopPerformers) -> dict[str, Any]:
    """The top performers as they stand in a document."""
    return {
        "at_least": {"accuracy": TOP_ACCURACY, "z": TOP_Z},
        "tested": top.tested,
        "configurations": [
            {"classifier": classifier, "pipeline": pipeline, "accuracy": accuracy}
            for classifier, pipeline, accuracy in top.top
        ],
        f"accuracy_at_least_{HIGHEST_ACCURACY}": top.highest,
        "options": {
            step: {name: {"top": count, "highest": highest} for name, (count, highest) in found.items()}
            for step, found in top.options.items()
        },
    }


def _weights(weights: Weights, groups: Sequence[str | None] | None) -> dict[str, Any]:
    """The largest; `weights.tsv` has all."""
    return {
        "classifier": weights.classifier,
        "pipeline": asdict(weights.pipeline),
        "largest": [
            {
                "feature": weights.names[column],
                "mean": {name: mean_P[column] for name, mean_P in zip(weights.classes, weights.mean_KP, strict=True)},
                "used": weights.used_P[column],
            }
            for column in weights.largest(LARGEST)
        ],
        "shares": weights.shares(groups) if groups is not None else {},
    }


def _weight_lines(weights: Sequence[Weights]) -> Iterator[list[object]]:
    yield ["classifier", "pipeline", "class", "feature", "weight_mean", "weight_sd", "used"]
    for one in weights:
        for label, mean_P, deviation_P in zip(one.classes, one.mean_KP, one.deviation_KP, strict=True):
            for column, feature in enumerate(one.names):
                figures = (mean_P[column], deviation_P[column], one.used_P[column])
                yield [one.classifier, one.pipeline.name, label, feature, *(f"{figure:.6g}" for figure in figures)]
