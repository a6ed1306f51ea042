"""Many pipelines on few cases, and how much of the best one's accuracy to believe.

After Appukuttan et al. (Front Neuroinform 2025, 19:1568116): leave-one-out outside, every fitted step inside the fold,
label permutations for the best pipelines, and each option of each step against its absence. The best of many is best
partly by luck, so there is a nested estimate besides: for each left-out case the pipeline is chosen without it.

Legend: N cases, K classes, M classifiers, L pipelines, R permutations.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msfl_common.dataset import Dataset
from msfl_common.system.seeds import derive_seed
from msfl_server.research.small_cohort.classifiers import CLASSIFIERS
from msfl_server.research.small_cohort.folds import deal_patients, patients_out
from msfl_server.research.small_cohort.measures import (
    Chance,
    against_chance,
    best_pipelines,
    effective_cases,
    measure,
    option_effects,
)
from msfl_server.research.small_cohort.pipeline_runs import Bench, PipelineRun, read_run, run_all, split_rows
from msfl_server.research.small_cohort.results import Nested, PipelineResults, Row, Scored, Tuned, scored_row
from msfl_server.research.small_cohort.search import Search
from msfl_server.research.small_cohort.setup import BLOCKS, PipelineSettings, check_cases, claim_out
from msfl_server.research.small_cohort.space import STANDARD, SearchPipeline, all_options, tried_pipelines
from msfl_server.research.small_cohort.weights import LINEAR, Weights, over_folds

CELLS = "cells"
OnProgress = Callable[[str, int, int], None]


def run_pipelines(
    cases: Dataset, settings: PipelineSettings, out: Path, jobs: int = 1, on_progress: OnProgress | None = None
) -> PipelineResults:
    """Try every pipeline with every classifier; resumes an earlier run in `out`.

    Args:
        cases: all in one place; a patient's rows are left out together.
        settings: what is tried.
        out: folder of the run.
        jobs: processes.
        on_progress: hears a stage's name, how many of its runs are done, and of how many.

    Raises:
        InputError: too few cases, or `out` belongs to a run of other cases or settings.
        RunError: a process ended before its work.
    """
    check_cases(cases, settings.classes)
    claim_out(out, cases, settings)
    bench = _make_bench(cases, settings)
    work = _Work(bench, out / CELLS, jobs, on_progress)
    left_out = [PipelineRun("left-out", (number,)) for number in range(len(set(cases.patients)))]
    pairs = [PipelineRun("blocks", pair) for pair in combinations(range(BLOCKS), 2)]
    kept = work.done("pipelines", [*left_out, *pairs])
    scores_MLNK = _gather(bench, left_out, kept, "scores_MLTK")
    tables = [measure(scores_LNK, cases.labels_N) for scores_LNK in scores_MLNK]
    sizes = [effective_cases(scores_LNK, cases.labels_N, cases.patients) for scores_LNK in scores_MLNK]
    best = [best_pipelines(table, settings.best) for table in tables]
    tested = [range(len(bench.pipelines))] * len(tables) if settings.test_all else best
    chances = _chances(work, tables, tested, settings.permutations)
    right_BML = _inner_right(bench, pairs, kept)
    searched_BM = _searched(bench, settings.search_pipeline, right_BML)
    rows = [
        Row(name, pipeline, scored_row(table, number, sizes_L), chances.get((name, number)))
        for name, table, sizes_L in zip(settings.classifiers, tables, sizes, strict=True)
        for number, pipeline in enumerate(bench.pipelines)
    ]
    options = all_options(bench.pipelines)
    return PipelineResults(
        rows=tuple(rows),
        best=tuple(rows[number] for number in best_pipelines(_joined(tables), settings.best)),
        nested=tuple(_nested(bench, right_BML, scores_MLNK)),
        effects={
            name: option_effects(table["accuracy"], options)
            for name, table in zip(settings.classifiers, tables, strict=True)
        },
        tuned=tuple(chain(*(_tuned(work, search, searched_BM, settings) for search in settings.searches))),
        weights=_linear_weights(work, [numbers[0] for numbers in best], settings.classes),
        stopped=_by_classifier(bench, kept, "stopped_M", len(kept) * len(bench.pipelines)),
        seconds=_by_classifier(bench, kept, "seconds_M", 1),
    )


def _make_bench(cases: Dataset, settings: PipelineSettings) -> Bench:
    return Bench(
        cases,
        deal_patients(cases.labels_N, cases.patients, BLOCKS, derive_seed(settings.seed, "blocks")),
        tried_pipelines(settings.pipelines, len(cases.names), settings.counts),
        settings.classifiers,
        settings.groups,
        settings.seed,
    )


class _Work:
    """Cells of one bench, worked through stage by stage."""

    def __init__(self, bench: Bench, folder: Path, jobs: int, on_progress: OnProgress | None) -> None:
        self.bench = bench
        self._folder, self._jobs, self._on_progress = folder, jobs, on_progress

    def done(self, stage: str, runs: Sequence[PipelineRun]) -> dict[str, Mapping[str, NDArray[Any]]]:
        """What each run gives, by its file."""

        def tell(count: int) -> None:
            if self._on_progress is not None:
                self._on_progress(stage, count, len(runs))

        run_all(self.bench, runs, self._folder, self._jobs, tell)
        return {run.file: read_run(self._folder, run) for run in runs}


def _gather(
    bench: Bench, runs: Sequence[PipelineRun], kept: Mapping[str, Mapping[str, NDArray[Any]]], what: str
) -> NDArray[np.float64]:
    """Scores of all cases from those of each split; the axis of cases is the last but one."""
    parts = [np.asarray(kept[run.file][what], np.float64) for run in runs]
    scores = np.empty((*parts[0].shape[:-2], len(bench.cases.patients), parts[0].shape[-1]))
    for run, part in zip(runs, parts, strict=True):
        scores[..., split_rows(bench, run)[1], :] = part
    return scores


def _chances(
    work: _Work, tables: Sequence[Mapping[str, NDArray[np.float64]]], chosen: Sequence[Sequence[int]], permutations: int
) -> dict[tuple[str, int], Chance]:
    """The best pipelines of each classifier against permuted labels."""
    wanted_ML = np.zeros((len(tables), len(work.bench.pipelines)), np.bool_)
    for index, numbers in enumerate(chosen):
        wanted_ML[index, list(numbers)] = True
    if not permutations or not wanted_ML.any():
        return {}
    runs = [PipelineRun("permutation", (number,), wanted_ML=wanted_ML) for number in range(permutations)]
    accuracy_RML = np.array([found["accuracy_ML"] for found in work.done("permutations", runs).values()])
    return {
        (name, number): against_chance(float(tables[index]["accuracy"][number]), accuracy_RML[:, index, number])
        for index, name in enumerate(work.bench.classifiers)
        for number in chosen[index]
    }


def _inner_right(
    bench: Bench, pairs: Sequence[PipelineRun], kept: Mapping[str, Mapping[str, NDArray[Any]]]
) -> NDArray[np.float64]:
    """What a choice rests on that knows nothing of a block: cases that each pipeline is right about without it.

    The patients are in six blocks. Without a block, there are five folds, the other five blocks, each told by models
    fitted on the four that remain.
    """
    labels_N = bench.cases.labels_N
    right_BML = np.zeros((BLOCKS, len(bench.classifiers), len(bench.pipelines)))
    for run in pairs:
        rows = split_rows(bench, run)[1]
        right_MLT = kept[run.file]["scores_MLTK"].argmax(axis=3) == labels_N[rows]
        for block, inner in (run.numbers, run.numbers[::-1]):
            right_BML[block] += right_MLT[:, :, bench.blocks_N[rows] == inner].sum(axis=2)
    return right_BML


def _searched(bench: Bench, which: SearchPipeline, right_BML: NDArray[np.float64]) -> NDArray[np.int64]:
    """The pipeline that each classifier's hyperparameters are searched with, for the cases of each block."""
    if which == "standard":
        return np.full(right_BML.shape[:2], bench.pipelines.index(STANDARD))
    return np.asarray(right_BML.argmax(axis=2))


def _nested(bench: Bench, right_BML: NDArray[np.float64], scores_MLNK: NDArray[np.float64]) -> list[Nested]:
    """Leave-one-out in which each case's pipeline is chosen by five folds that know nothing of its block.

    The case itself is then told by the chosen pipeline, fitted on all other cases.
    """
    labels_N = bench.cases.labels_N
    num_pipelines = len(bench.pipelines)
    every = list(range(len(bench.classifiers)))
    found = []
    for name, members in [*zip(bench.classifiers, [[index] for index in every], strict=True), ("all", every)]:
        scores_NK, chosen = np.empty(scores_MLNK.shape[2:]), Counter[str]()
        for block in range(BLOCKS):
            first, number = divmod(int(right_BML[block, members].reshape(-1).argmax()), num_pipelines)
            in_block = bench.blocks_N == block
            scores_NK[in_block] = scores_MLNK[members[first], number][in_block]
            told = bench.pipelines[number].name
            chosen[told if len(members) == 1 else f"{bench.classifiers[members[first]]}: {told}"] += 1
        size = effective_cases(scores_NK[None], labels_N, bench.cases.patients)
        scored = scored_row(measure(scores_NK[None], labels_N), 0, size)
        # Scores of different classifiers have no common scale to rank cases on.
        metrics = {metric: value for metric, value in scored.metrics.items() if metric != "auroc"}
        right_N = _right(scores_NK, labels_N)
        found.append(Nested(name, Scored(metrics, scored.low, scored.high), dict(chosen.most_common()), right_N))
    return found


def _tuned(work: _Work, search: Search, searched_BM: NDArray[np.int64], settings: PipelineSettings) -> Iterator[Tuned]:
    """Each classifier's left-out cases by tuned hyperparameters, and against permuted labels if it is asked for."""
    bench, patients = work.bench, patients_out(work.bench.cases.patients)
    runs = [PipelineRun("search", (number,), search, searched_BM=searched_BM) for number in range(len(patients))]
    kept = work.done(f"{search} search", runs)
    scores_MNK = _gather(bench, runs, kept, "scores_MTK")
    table = measure(scores_MNK, bench.cases.labels_N)
    sizes_M = effective_cases(scores_MNK, bench.cases.labels_N, bench.cases.patients)
    seconds = _by_classifier(bench, kept, "seconds_M", 1)
    hyper_MD = np.median([found["hyper_MD"] for found in kept.values()], axis=0)
    permuted_RM = None
    if settings.test_tuned and settings.permutations:
        runs = [
            PipelineRun("permuted-search", (number,), search, searched_BM=searched_BM)
            for number in range(settings.permutations)
        ]
        done = work.done(f"{search} search, permutations", runs)
        permuted_RM = np.array([found["accuracy_M"] for found in done.values()])
    for index, name in enumerate(bench.classifiers):
        chosen = (bench.pipelines[searched_BM[bench.blocks_N[rows[0]], index]].name for rows in patients)
        yield Tuned(
            name,
            search,
            scored_row(table, index, sizes_M),
            dict(zip(CLASSIFIERS[name].ranges, map(float, hyper_MD[index]), strict=False)),
            seconds[name],
            dict(Counter(chosen).most_common()),
            _right(scores_MNK[index], bench.cases.labels_N),
            None if permuted_RM is None else against_chance(float(table["accuracy"][index]), permuted_RM[:, index]),
        )


def _linear_weights(work: _Work, best: Sequence[int], classes: Sequence[str]) -> tuple[Weights, ...]:
    """Of each linear classifier's best pipeline."""
    bench = work.bench
    runs = {
        name: PipelineRun("weights", (index, number))
        for index, (name, number) in enumerate(zip(bench.classifiers, best, strict=True))
        if name in LINEAR
    }
    kept = work.done("weights", list(runs.values())) if runs else {}
    return tuple(
        over_folds(name, bench.pipelines[run.numbers[1]], bench.cases.names, classes, kept[run.file]["weights_FKP"])
        for name, run in runs.items()
    )


def _right(scores_NK: NDArray[np.float64], labels_N: NDArray[np.int64]) -> tuple[bool, ...]:
    return tuple((scores_NK.argmax(axis=1) == labels_N).tolist())


def _by_classifier(
    bench: Bench, kept: Mapping[str, Mapping[str, NDArray[Any]]], what: str, divisor: int
) -> dict[str, float]:
    total_M = np.sum([found[what] for found in kept.values()], axis=0) / divisor
    return dict(zip(bench.classifiers, map(float, total_M), strict=True))


def _joined(tables: Sequence[Mapping[str, NDArray[np.float64]]]) -> dict[str, NDArray[np.float64]]:
    return {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
