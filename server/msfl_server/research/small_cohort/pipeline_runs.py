"""The work in runs that do not depend on each other: on several cores, each kept as soon as it is done.

Legend: N cases, T test cases, K classes, M classifiers, L pipelines, D hyperparameters.

A run is one split of the cases with all its pipelines, one permutation of the labels, or one split of a search. What
it gives depends on the cases, the settings and its own numbers alone, so that neither the number of processes nor an
interruption changes a figure.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn import config_context
from threadpoolctl import threadpool_limits

from msfl_common.dataset import Dataset
from msfl_common.errors import InputError, RunError, reason
from msfl_common.system.files import write_bytes
from msfl_common.system.processes import end_with_starter, without_interrupts
from msfl_common.system.seeds import derive_seed
from msfl_server.research.small_cohort.classifiers import build_classifier, class_scores
from msfl_server.research.small_cohort.folds import patients_out
from msfl_server.research.small_cohort.measures import permute_labels
from msfl_server.research.small_cohort.search import Search, tune
from msfl_server.research.small_cohort.space import Pipeline
from msfl_server.research.small_cohort.steps import prepare_split, row_scaled, score_split, unsettled_fits
from msfl_server.research.small_cohort.weights import split_weights

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Bench:
    """What every run works on.

    Attributes:
        cases: features, labels and patients.
        blocks_N: the block of each case, for the nested estimate.
        pipelines: the steps before a classifier.
        classifiers: names of `CLASSIFIERS`.
        groups: the group of each feature, within which a case is scaled, None of one that is not; None: one group.
        seed: of the study.
    """

    cases: Dataset
    blocks_N: NDArray[np.int64]
    pipelines: tuple[Pipeline, ...]
    classifiers: tuple[str, ...]
    groups: tuple[str | None, ...] | None
    seed: int


@dataclass(frozen=True)
class PipelineRun:
    """A piece of work.

    Attributes:
        kind: what is done.
        numbers: of the patient left out, of the two blocks left out, of the permutation, or of the classifier and the
            pipeline whose weights are told.
        search: of a search, which.
        wanted_ML: of a permutation, which classifiers are fitted on which pipelines.
        searched_BM: of a search, the number of each classifier's pipeline for the cases of each block.
    """

    kind: Literal["left-out", "blocks", "permutation", "search", "permuted-search", "weights"]
    numbers: tuple[int, ...]
    search: Search | None = None
    wanted_ML: NDArray[np.bool_] | None = None
    searched_BM: NDArray[np.int64] | None = None

    @property
    def file(self) -> str:
        """Name of its file."""
        parts = [self.kind, *([self.search] if self.search else []), *(f"{number:04d}" for number in self.numbers)]
        return "-".join(parts) + ".npz"


def run_all(bench: Bench, runs: Sequence[PipelineRun], folder: Path, jobs: int, on_done: Callable[[int], None]) -> None:
    """Work through the runs that have no file in `folder` yet.

    Args:
        bench: what they work on.
        runs: the runs.
        folder: where each leaves a file, whole or not at all.
        jobs: processes; 1 works in this one.
        on_done: hears how many runs are done, those of earlier runs first.

    Raises:
        RunError: a process ended before its work; what was done is kept.
    """
    left = [run for run in runs if not (folder / run.file).exists()]
    done = len(runs) - len(left)
    on_done(done)

    def keep(run: PipelineRun, arrays: Arrays) -> None:
        nonlocal done
        stream = io.BytesIO()
        np.savez_compressed(stream, **arrays)
        write_bytes(folder / run.file, stream.getvalue())
        done += 1
        on_done(done)

    if jobs == 1 or len(left) < 2:
        for run in left:
            keep(run, run_one(bench, run))
    else:
        _run_parallel(bench, left, min(jobs, len(left)), keep)


def read_run(folder: Path, run: PipelineRun) -> Mapping[str, NDArray[Any]]:
    """What a run left.

    Raises:
        InputError: its file is damaged.
    """
    path = folder / run.file
    try:
        with np.load(path) as content:
            return dict(content)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path}: cannot be read ({reason(error)}); delete it and run the same command again"
        ) from None


def run_one(bench: Bench, run: PipelineRun) -> Arrays:
    """The work of one run, in one thread."""
    with threadpool_limits(1), config_context(assume_finite=True, skip_parameter_validation=True):
        if run.kind == "permutation":
            return _permutation(bench, run)
        if run.kind == "search":
            return _search(bench, run, bench.cases.labels_N, *split_rows(bench, run))
        if run.kind == "permuted-search":
            return _permuted_search(bench, run)
        if run.kind == "weights":
            return _weights(bench, run)
        train, test = split_rows(bench, run)
        features = row_scaled(bench.cases.features_NP, bench.groups)
        labels_N = bench.cases.labels_N
        found = score_split(features, labels_N, train, test, bench.pipelines, bench.classifiers, bench.seed)
        return {"scores_MLTK": found.scores_MLTK, "stopped_M": found.stopped_M, "seconds_M": found.seconds_M}


def split_rows(bench: Bench, run: PipelineRun) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows that a run trains on, and those that it scores."""
    if run.kind == "blocks":
        out_N = np.isin(bench.blocks_N, run.numbers)
    else:
        out_N = np.zeros(len(bench.blocks_N), np.bool_)
        out_N[patients_out(bench.cases.patients)[run.numbers[0]]] = True
    return np.flatnonzero(~out_N), np.flatnonzero(out_N)


def _permuted(bench: Bench, run: PipelineRun) -> NDArray[np.int64]:
    """Labels in a random order that is the run's own; the same for pipelines and searches."""
    rng = np.random.default_rng(derive_seed(bench.seed, "permutation", *run.numbers))
    return permute_labels(bench.cases.labels_N, bench.cases.patients, rng)


def _folds(bench: Bench) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Rows to train on and rows to score, of leave-one-out."""
    for test in patients_out(bench.cases.patients):
        yield np.setdiff1d(np.arange(len(bench.cases.labels_N)), test), test


def _permutation(bench: Bench, run: PipelineRun) -> Arrays:
    """Accuracies (M x L) of leave-one-out with permuted labels, every step fitted anew."""
    labels_N = _permuted(bench, run)
    features = row_scaled(bench.cases.features_NP, bench.groups)
    assert run.wanted_ML is not None
    right_ML, stopped_M = np.zeros(run.wanted_ML.shape), np.zeros(len(bench.classifiers), np.int64)
    for train, test in _folds(bench):
        found = score_split(
            features, labels_N, train, test, bench.pipelines, bench.classifiers, bench.seed, run.wanted_ML
        )
        right_ML += (found.scores_MLTK.argmax(axis=3) == labels_N[test]).sum(axis=2)
        stopped_M += found.stopped_M
    accuracy_ML = np.where(run.wanted_ML, right_ML / len(labels_N), np.nan)
    return {"accuracy_ML": accuracy_ML, "stopped_M": stopped_M}


def _permuted_search(bench: Bench, run: PipelineRun) -> Arrays:
    """Accuracies (M) of leave-one-out with permuted labels, hyperparameters tuned anew for each left-out patient."""
    labels_N = _permuted(bench, run)
    right_M = np.zeros(len(bench.classifiers))
    for train, test in _folds(bench):
        scores_MTK = _search(bench, run, labels_N, train, test)["scores_MTK"]
        right_M += (scores_MTK.argmax(axis=2) == labels_N[test]).sum(axis=1)
    return {"accuracy_M": right_M / len(labels_N)}


def _search(
    bench: Bench, run: PipelineRun, labels_N: NDArray[np.int64], train: NDArray[np.intp], test: NDArray[np.intp]
) -> Arrays:
    """Scores (M x T x K) of the left-out cases by tuned classifiers, and the hyperparameters (M x D)."""
    assert run.search is not None
    assert run.searched_BM is not None
    features = row_scaled(bench.cases.features_NP, bench.groups)
    scores, hypers, seconds = [], [], []
    for name, number in zip(bench.classifiers, run.searched_BM[bench.blocks_N[test[0]]], strict=True):
        start, pipeline = time.process_time(), bench.pipelines[number]
        hyper = tune(name, run.search, features, labels_N, bench.cases.patients, train, pipeline, bench.seed)
        train_NP, test_NP = prepare_split(features, labels_N, train, test, pipeline)
        with unsettled_fits():
            model = build_classifier(name, derive_seed(bench.seed, name), hyper).fit(train_NP, labels_N[train])
        scores.append(class_scores(model, test_NP))
        seconds.append(time.process_time() - start)
        hypers.append(([*hyper.values()] + 2 * [np.nan])[:2])
    return {"scores_MTK": np.array(scores), "hyper_MD": np.array(hypers), "seconds_M": np.array(seconds)}


def _weights(bench: Bench, run: PipelineRun) -> Arrays:
    """Weights of the features (F x K x P) in each fold of leave-one-out."""
    features = row_scaled(bench.cases.features_NP, bench.groups)
    name, pipeline = bench.classifiers[run.numbers[0]], bench.pipelines[run.numbers[1]]
    folds = [
        split_weights(name, pipeline, features, bench.cases.labels_N, train, bench.seed) for train, _ in _folds(bench)
    ]
    return {"weights_FKP": np.array(folds, np.float32)}


_bench: Bench | None = None


def _run_parallel(
    bench: Bench, runs: Sequence[PipelineRun], jobs: int, keep: Callable[[PipelineRun, Arrays], None]
) -> None:
    before = multiprocessing.active_children()
    # Started afresh: a copy of this process would share its threads' locks.
    executor = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _enter, (bench, os.getpid()))
    try:
        with without_interrupts():
            futures = {executor.submit(_run_here, run): run for run in runs}
        for future in as_completed(futures):
            keep(futures[future], future.result())
    except BaseException as error:
        executor.shutdown(wait=False, cancel_futures=True)
        for child in multiprocessing.active_children():
            if child not in before:
                child.terminate()
        if isinstance(error, BrokenProcessPool):
            raise RunError(
                "a process ended before its work, perhaps for want of memory; run the same command again with fewer "
                "--workers, what was completed is kept"
            ) from None
        raise
    executor.shutdown()


def _enter(bench: Bench, starter: int) -> None:
    """Begin a process that ends when its starter is gone."""
    global _bench
    _bench = bench
    os.environ["MSFL_STARTER"] = str(starter)
    end_with_starter()


def _run_here(run: PipelineRun) -> Arrays:
    assert _bench is not None
    return run_one(_bench, run)
