"""Configurations that do well and are unlikely to by chance, and which options they share.

After Appukuttan et al. (2025), section 3.2.3 and Figure 5: an accuracy of at least 60% with a z-score of at least 2,
and which of these reach 70%; a classifier is taken further where it reaches 60% in every task (section 3.1).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from msfl_server.research.small_cohort.results import PipelineResults, Row

TOP_ACCURACY, HIGHEST_ACCURACY, TOP_Z = 0.6, 0.7, 2.0
_NEARLY = 1e-9  # accuracies are shares of whole cases: 18 of 30 is 0.6


@dataclass(frozen=True)
class TopPerformers:
    """The top performers of one task, or of several at once.

    Attributes:
        tested: configurations with a z-score in every task; others cannot be among the top.
        top: classifier and pipeline's name, each with its lowest accuracy of all tasks, highest first.
        highest: how many of the top reach 70% in every task.
        options: of each step, how many of the top have an option, and how many of the highest.
    """

    tested: int
    top: tuple[tuple[str, str, float], ...]
    highest: int
    options: Mapping[str, Mapping[str, tuple[int, int]]]


def top_performers(tasks: Sequence[PipelineResults]) -> TopPerformers:
    """Configurations with at least 60% and z of at least 2 in every task."""
    by_task = [{(row.classifier, row.pipeline): row for row in results.rows} for results in tasks]
    shared = [key for key in by_task[0] if all(key in one for one in by_task)]
    rows = [[one[key] for one in by_task] for key in shared]
    top = sorted((row for row in rows if all(map(_is_top, row))), key=lambda row: -_lowest(row))
    counts: dict[str, Counter[str]] = {}
    highest: dict[str, Counter[str]] = {}
    for row in top:
        for step, option in _options(row[0]).items():
            counts.setdefault(step, Counter())[option] += 1
            highest.setdefault(step, Counter())[option] += _lowest(row) >= HIGHEST_ACCURACY - _NEARLY
    return TopPerformers(
        sum(all(one.chance is not None for one in row) for row in rows),
        tuple((row[0].classifier, row[0].pipeline.name, _lowest(row)) for row in top),
        sum(_lowest(row) >= HIGHEST_ACCURACY - _NEARLY for row in top),
        {
            step: {option: (count, highest[step][option]) for option, count in found.most_common()}
            for step, found in counts.items()
        },
    )


def shortlist(tasks: Sequence[PipelineResults]) -> tuple[str, ...]:
    """Classifiers whose best pipeline reaches 60% in every task."""
    return tuple(
        name
        for name in tasks[0].effects
        if all(results.best_of(name, 1)[0].scored.metrics["accuracy"] >= TOP_ACCURACY - _NEARLY for results in tasks)
    )


def _is_top(row: Row) -> bool:
    z = row.chance.z if row.chance is not None else None
    return z is not None and z >= TOP_Z and row.scored.metrics["accuracy"] >= TOP_ACCURACY - _NEARLY


def _lowest(rows: Sequence[Row]) -> float:
    return min(row.scored.metrics["accuracy"] for row in rows)


def _options(row: Row) -> dict[str, str]:
    selected = str(row.pipeline.num_selected) if row.pipeline.num_selected else "all"
    return {
        "classifier": row.classifier,
        "row scaling": row.pipeline.row,
        "column scaling": row.pipeline.column,
        "selection": row.pipeline.selection,
        "features kept": selected,
        "reduction": row.pipeline.reduction,
    }
