"""What a run of pipelines reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from msfl_common.metrics.intervals import wilson
from msfl_server.research.small_cohort.measures import Chance, Effect
from msfl_server.research.small_cohort.search import Search
from msfl_server.research.small_cohort.space import Pipeline
from msfl_server.research.small_cohort.weights import Weights


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
    """The accuracy to expect of choosing the best pipeline.

    Attributes:
        classifier: which, or `all`.
        scored: left-out cases, each told by a pipeline that was chosen without it.
        chosen: the pipelines, and in how many of the blocks.
        right_N: whether each case was classified correctly.
    """

    classifier: str
    scored: Scored
    chosen: Mapping[str, int]
    right_N: tuple[bool, ...]


@dataclass(frozen=True)
class Tuned:
    """A classifier with hyperparameters of a search.

    Attributes:
        classifier, search: which.
        scored: left-out cases; each was told with hyperparameters that were chosen without it.
        hyper: medians of the chosen hyperparameters over the left-out cases.
        seconds: of CPU in all folds.
        pipelines: with which they were chosen, and for how many left-out patients each.
        right_N: whether each case was classified correctly.
        chance: against permuted labels, with the same pipelines and hyperparameters tuned anew, where it was tested.
    """

    classifier: str
    search: Search
    scored: Scored
    hyper: Mapping[str, float]
    seconds: float
    pipelines: Mapping[str, int]
    right_N: tuple[bool, ...]
    chance: Chance | None = None


@dataclass(frozen=True)
class PipelineResults:
    """Everything that is reported.

    Attributes:
        rows: every classifier with every pipeline.
        best: the best rows of all classifiers together, most accurate first.
        nested: of each classifier, and of all together.
        effects: of each option, by classifier.
        tuned: by search and classifier.
        weights: of the features, of each linear classifier's best pipeline.
        stopped: share of a classifier's fits in which a solver stopped at its limit of iterations.
        seconds: CPU seconds in fits of each classifier, without the permutations.
    """

    rows: tuple[Row, ...]
    best: tuple[Row, ...]
    nested: tuple[Nested, ...]
    effects: Mapping[str, Sequence[Effect]]
    tuned: tuple[Tuned, ...] = ()
    weights: tuple[Weights, ...] = ()
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
