"""What a run of pipelines reports: figures, and the files that hold them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msfl_common.dataset import Dataset
from msfl_common.metrics.intervals import wilson
from msfl_common.system.files import write_json, write_text
from msfl_common.system.tab_separated import tsv_text
from msfl_server.research.small_cohort.folds import patient_classes
from msfl_server.research.small_cohort.measures import Chance, Effect, metric_names
from msfl_server.research.small_cohort.search import Search
from msfl_server.research.small_cohort.setup import PipelineSettings
from msfl_server.research.small_cohort.space import Pipeline

RESULTS_FILE, TABLE_FILE = "pipelines.json", "pipelines.tsv"


@dataclass(frozen=True)
class Scored:
    """Figures of left-out cases: metric to value, with the 95% interval of the accuracy."""

    metrics: Mapping[str, float]
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """One pipeline with one classifier; `chance` where it was tested by permutations."""

    classifier: str
    pipeline: Pipeline
    scored: Scored
    chance: Chance | None = None


@dataclass(frozen=True)
class Nested:
    """The accuracy to expect of choosing the best pipeline, and which were chosen, in how many of the blocks."""

    classifier: str
    scored: Scored
    chosen: Mapping[str, int]


@dataclass(frozen=True)
class Tuned:
    """A classifier with hyperparameters of a search.

    Attributes:
        classifier, search: which.
        scored: left-out cases; each was told with hyperparameters that were chosen without it.
        hyper: medians of the chosen hyperparameters over the left-out cases.
        seconds: of CPU in all folds.
        pipelines: with which they were chosen, and for how many left-out patients each.
    """

    classifier: str
    search: Search
    scored: Scored
    hyper: Mapping[str, float]
    seconds: float
    pipelines: Mapping[str, int]


@dataclass(frozen=True)
class PipelineResults:
    """Everything that is reported.

    Attributes:
        rows: every classifier with every pipeline.
        best: the best rows of all classifiers together, most accurate first.
        nested: of each classifier, and of all together.
        effects: of each option, by classifier.
        tuned: by search and classifier.
        stopped: share of a classifier's fits in which a solver stopped at its limit of iterations.
        seconds: CPU seconds in fits of each classifier, without the permutations.
    """

    rows: tuple[Row, ...]
    best: tuple[Row, ...]
    nested: tuple[Nested, ...]
    effects: Mapping[str, Sequence[Effect]]
    tuned: tuple[Tuned, ...] = ()
    stopped: Mapping[str, float] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)

    def best_of(self, classifier: str, count: int) -> list[Row]:
        """The best rows of a classifier, most accurate first; of equals, the simplest."""
        rows = [row for row in self.rows if row.classifier == classifier]
        keys = ("accuracy", "balanced_accuracy", "auroc")
        return sorted(rows, key=lambda row: [-row.scored.metrics[key] for key in keys])[:count]


def scored_row(table: Mapping[str, NDArray[np.float64]], number: int, sizes_L: NDArray[np.float64]) -> Scored:
    """One of the pipelines of a table of metrics, with Wilson's interval of its accuracy (see `effective_cases`)."""
    metrics = {name: float(values[number]) for name, values in table.items()}
    return Scored(metrics, *wilson(metrics["accuracy"], float(sizes_L[number])))


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
        "tuned": [
            {
                "classifier": one.classifier,
                "search": one.search,
                **_told(one.scored),
                "pipelines": dict(one.pipelines),
                "hyperparameters_median": dict(one.hyper),
                "cpu_seconds": round(one.seconds, 2),
            }
            for one in results.tuned
        ],
    }


def write_results(out: Path, results: PipelineResults, document: Mapping[str, Any]) -> None:
    """Write `pipelines.json`, and `pipelines.tsv` with a line for every classifier and pipeline."""
    steps = ("row", "column", "selection", "num_selected", "reduction")
    columns = ["classifier", *steps, *metric_names(), "accuracy_low", "accuracy_high", "chance_accuracy", "z", "p"]
    lines: list[list[object]] = [[*columns]]
    for row in results.rows:
        chance = [row.chance.mean, row.chance.z, row.chance.p] if row.chance else [None] * 3
        figures = [*(row.scored.metrics[name] for name in metric_names()), row.scored.low, row.scored.high, *chance]
        told = ["n/a" if figure is None else f"{figure:.6g}" for figure in figures]
        lines.append([row.classifier, *(getattr(row.pipeline, step) for step in steps), *told])
    write_text(out / TABLE_FILE, tsv_text(lines))
    write_json(out / RESULTS_FILE, document)


def _row(row: Row) -> dict[str, Any]:
    chance = asdict(row.chance) if row.chance else None
    return {"classifier": row.classifier, "pipeline": asdict(row.pipeline), **_told(row.scored), "chance": chance}


def _told(scored: Scored) -> dict[str, Any]:
    return {**scored.metrics, "accuracy_ci95": [scored.low, scored.high]}
