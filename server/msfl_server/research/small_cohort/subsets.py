"""Subsets of the columns of a table, such as modalities or a parcellation, and what each is worth.

After Appukuttan et al. (2025), section 3.4: maps of one, two or three modalities, and regions of grey matter alone
against grey and white.

Legend: N cases, P features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
from scipy.stats import binomtest

from msfl_common.dataset import Dataset
from msfl_common.errors import InputError
from msfl_server.research.small_cohort.measures import Chance, Effect, paired_effect
from msfl_server.research.small_cohort.results import PipelineResults, Scored
from msfl_server.research.small_cohort.tasks import read_named


@dataclass(frozen=True)
class Subset:
    """Some columns of a table.

    Attributes:
        name: of the subset and of its folder.
        columns: numbers of its columns.
    """

    name: str
    columns: tuple[int, ...]


@dataclass(frozen=True)
class CaseCounts:
    """One choice with a subset and with all columns, on the same cases.

    Attributes:
        what: the choice: nested, the one pipeline where only one is tried, or a search.
        classifier: which.
        scored, scored_all: figures with the subset, and with all columns.
        chance, chance_all: against permuted labels, where tested.
        only_subset, only_all: cases classified correctly with one alone.
        p: McNemar's exact test of these two counts; 1 where both are 0.
    """

    what: str
    classifier: str
    scored: Scored
    scored_all: Scored
    chance: Chance | None
    chance_all: Chance | None
    only_subset: int
    only_all: int
    p: float


def read_subsets(texts: Sequence[str], names: Sequence[str]) -> tuple[Subset, ...]:
    """Subsets as they are written on a command line.

    Args:
        texts: each `NAME=PATTERN,PATTERN`: columns whose name matches any of the patterns, `*` for any text.
        names: the P columns.

    Raises:
        InputError: a pattern matches no column, or a subset has all of them or another's name.
    """
    found: list[Subset] = []
    for text in texts:
        name, patterns = read_named("--subset", text, "qT1=qT1_*")
        for pattern in patterns:
            if not any(fnmatchcase(column, pattern) for column in names):
                raise InputError(f"--subset {name}: no column matches {pattern}; there are {names[0]} and others")
        columns = tuple(
            number for number, column in enumerate(names) if any(fnmatchcase(column, one) for one in patterns)
        )
        if len(columns) == len(names):
            raise InputError(f"--subset {name}: has all {len(names)} columns; all are compared with it anyway")
        if name in [one.name for one in found]:
            raise InputError(f"--subset {name}: is there twice; give each a name of its own")
        found.append(Subset(name, columns))
    return tuple(found)


def subset_cases(cases: Dataset, subset: Subset) -> Dataset:
    """The cases with the columns of a subset alone."""
    columns = list(subset.columns)
    return Dataset(
        tuple(cases.names[column] for column in columns),
        np.ascontiguousarray(cases.features_NP[:, columns]),
        cases.labels_N,
        cases.patients,
    )


def pipeline_effects(subset: str, results: PipelineResults, every: PipelineResults) -> dict[str, Effect]:
    """The subset against all columns by classifier, over the pipelines that both have."""
    accuracy = {(row.classifier, row.pipeline): row.scored.metrics["accuracy"] for row in every.rows}
    found = {}
    for name in results.effects:
        pairs = [
            (row.scored.metrics["accuracy"], accuracy[name, row.pipeline])
            for row in results.rows
            if row.classifier == name and (name, row.pipeline) in accuracy
        ]
        with_it, without = np.array(pairs).T
        found[name] = paired_effect("columns", subset, with_it, without)
    return found


def case_counts(results: PipelineResults, every: PipelineResults) -> list[CaseCounts]:
    """The subset against all columns by case: of each classifier's nested estimate, and of each search."""
    found = []
    for one, other in zip(results.nested, every.nested, strict=True):
        only, only_all, p = _mcnemar(one.right_N, other.right_N)
        best, best_all = results.best_of(one.classifier, 2), every.best_of(one.classifier, 1)
        alone = len(best) == 1  # nothing was chosen
        found.append(
            CaseCounts(
                "pipeline" if alone else "nested",
                one.classifier,
                one.scored,
                other.scored,
                best[0].chance if alone else None,
                best_all[0].chance if alone else None,
                only,
                only_all,
                p,
            )
        )
    for tuned, before in zip(results.tuned, every.tuned, strict=True):
        only, only_all, p = _mcnemar(tuned.right_N, before.right_N)
        found.append(
            CaseCounts(
                f"{tuned.search} search", tuned.classifier, tuned.scored, before.scored, tuned.chance, before.chance,
                only, only_all, p,
            )
        )  # fmt: skip
    return found


def _mcnemar(right_N: Sequence[bool], other_N: Sequence[bool]) -> tuple[int, int, float]:
    only = sum(one and not other for one, other in zip(right_N, other_N, strict=True))
    only_other = sum(other and not one for one, other in zip(right_N, other_N, strict=True))
    told = only + only_other
    return only, only_other, float(binomtest(only, told).pvalue) if told else 1.0
