"""All pipelines on one split of the cases: a tree of steps, in which what pipelines share is fitted once.

Legend: N cases, T test cases, P features, K classes, M classifiers, L pipelines.

Every step is fitted on the training cases of the split alone. Row scaling has nothing to fit: it uses a case's own
features only.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_selection import f_classif
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from msfl_common.system.seeds import derive_seed
from msfl_server.research.small_cohort.classifiers import build_classifier, class_scores
from msfl_server.research.small_cohort.machines import regression_weights
from msfl_server.research.small_cohort.space import Pipeline, Scaling

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Rows = NDArray[np.intp]

# Share of all features that recursive elimination drops in a step. One path serves all counts: it stops at each.
RFE_STEP = 0.1
# Share of the variance that principal components keep.
PCA_VARIANCE = 0.95


@dataclass(frozen=True)
class SplitScores:
    """What the classifiers say of the test cases of one split.

    Attributes:
        scores_MLTK: class scores; NaN where a classifier was not asked for a pipeline.
        stopped_M: fits that stopped at the limit of iterations, steps before the classifier included.
        seconds_M: CPU seconds in the classifier; 0 with `wanted_ML`, as reading the clock takes time.
    """

    scores_MLTK: NDArray[np.float32]
    stopped_M: Ints
    seconds_M: Floats


def scale_rows(features_NP: Floats, scaling: Scaling, groups: Sequence[str | None] | None = None) -> Floats:
    """Each case over its own features: mean 0 and variance 1, or 0 to 1; within each group of features, if given.

    Args:
        features_NP: features of N cases.
        scaling: how.
        groups: the group of each of the P features, for example the imaging map that it comes from, None
            of one that stays as it is; None: one group.
    """
    if scaling == "none":
        return features_NP
    scaled_NP = features_NP.copy()
    names = groups if groups is not None else [""] * features_NP.shape[1]
    for name in {one for one in names if one is not None}:
        columns = [place for place, one in enumerate(names) if one == name]
        scaler = StandardScaler() if scaling == "standard" else MinMaxScaler()
        scaled_NP[:, columns] = scaler.fit_transform(features_NP[:, columns].T).T
    return scaled_NP


def row_scaled(features_NP: Floats, groups: Sequence[str | None] | None) -> dict[Scaling, Floats]:
    """The features by row scaling."""
    return {scaling: scale_rows(features_NP, scaling, groups) for scaling in get_args(Scaling)}


def score_split(
    features: Mapping[Scaling, Floats],
    labels_N: Ints,
    train: Rows,
    test: Rows,
    pipelines: Sequence[Pipeline],
    classifiers: Sequence[str],
    seed: int,
    wanted_ML: NDArray[np.bool_] | None = None,
) -> SplitScores:
    """Fit every pipeline with every classifier on the training cases, and score the test cases.

    Args:
        features: N x P by row scaling.
        labels_N: 0..K-1, each among the training cases.
        train: rows to fit on.
        test: rows to score; they take no part in any fit.
        pipelines: the steps before the classifiers.
        classifiers: names of `CLASSIFIERS`.
        seed: of the study.
        wanted_ML: which classifiers to fit for which pipelines; None: all for all.
    """
    num_classes = int(labels_N.max()) + 1
    shape = (len(classifiers), len(pipelines), len(test), num_classes)
    scores_MLTK = np.full(shape, np.nan, np.float32)
    stopped_M, seconds_M = np.zeros(len(classifiers), np.int64), np.zeros(len(classifiers))
    now: Callable[[], float] = time.process_time if wanted_ML is None else lambda: 0.0
    wanted_ML = np.ones(shape[:2], np.bool_) if wanted_ML is None else wanted_ML
    asked = [number for number in range(len(pipelines)) if wanted_ML[:, number].any()]
    for number, train_TP, test_TP, unsettled in _walk(features, labels_N, train, test, pipelines, asked):
        for index, name in enumerate(classifiers):
            if wanted_ML[index, number]:
                start = now()
                with unsettled_fits() as stops:
                    model = build_classifier(name, derive_seed(seed, name)).fit(train_TP, labels_N[train])
                scores_MLTK[index, number] = class_scores(model, test_TP)
                seconds_M[index] += now() - start
                stopped_M[index] += bool(stops) or unsettled
    return SplitScores(scores_MLTK, stopped_M, seconds_M)


def prepare_split(
    features: Mapping[Scaling, Floats], labels_N: Ints, train: Rows, test: Rows, pipeline: Pipeline
) -> tuple[Floats, Floats]:
    """Training and test cases of one split after a pipeline's steps, each fitted on the training cases."""
    _, train_NP, test_NP, _ = next(_walk(features, labels_N, train, test, [pipeline], [0]))
    return train_NP, test_NP


def unsettled_fits() -> warnings.catch_warnings[list[warnings.WarningMessage]]:
    """Collect what a fit warns of: above all, a solver that stopped at its limit of iterations."""
    return warnings.catch_warnings(record=True, action="always", category=ConvergenceWarning)


def _walk(
    features: Mapping[Scaling, Floats],
    labels_N: Ints,
    train: Rows,
    test: Rows,
    pipelines: Sequence[Pipeline],
    asked: Sequence[int],
) -> Iterator[tuple[int, Floats, Floats, bool]]:
    """Number, training and test features of each pipeline, and whether a step before stopped at its limit."""
    known_N = labels_N[train]
    by_scaling: dict[tuple[Scaling, Scaling], list[int]] = {}
    for number in asked:
        by_scaling.setdefault((pipelines[number].row, pipelines[number].column), []).append(number)
    for (row, column), numbers in by_scaling.items():
        train_NP, test_NP = _scale_columns(features[row][train], features[row][test], column)
        by_selection: dict[tuple[str, int], list[int]] = {}
        for number in numbers:
            by_selection.setdefault((pipelines[number].selection, pipelines[number].num_selected), []).append(number)
        kept, unsettled = select_features(train_NP, known_N, list(by_selection))
        for selection, selected in by_selection.items():
            columns = kept[selection]
            for number in selected:
                reduced = _reduce(train_NP[:, columns], known_N, test_NP[:, columns], pipelines[number].reduction)
                yield number, *reduced, unsettled and selection[0] == "rfe"


def _scale_columns(train_NP: Floats, test_NP: Floats, scaling: Scaling) -> tuple[Floats, Floats]:
    if scaling == "none":
        return train_NP, test_NP
    scaler = (StandardScaler() if scaling == "standard" else MinMaxScaler()).fit(train_NP)
    return scaler.transform(train_NP), scaler.transform(test_NP)


def select_features(
    train_NP: Floats, labels_N: Ints, selections: Sequence[tuple[str, int]]
) -> tuple[dict[tuple[str, int], Rows], bool]:
    """Columns that each selection keeps, in their order, and whether recursive elimination stopped at a limit.

    `k-best` is `SelectKBest(f_classif)`, `rfe` is `RFE(SVR(kernel="linear"))` on the class numbers, as in the paper.
    Elimination drops a tenth of all features in a step and goes on from one count to the next, so that one path
    gives all counts; the largest is what `RFE` alone would give.
    """
    every = np.arange(train_NP.shape[1])
    kept: dict[tuple[str, int], Rows] = {("none", 0): every}
    if best := [count for name, count in selections if name == "k-best"]:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # a feature that is constant in the fold has no F; it comes last
            f_P: Floats = f_classif(train_NP, labels_N)[0]
        # Of equals, the later feature is kept, as SelectKBest has it.
        order = np.argsort(np.where(np.isnan(f_P), -1.0, f_P), kind="mergesort")
        kept |= {("k-best", count): np.sort(order[len(order) - count :]) for count in best}
    left, step = every, max(1, int(RFE_STEP * len(every)))
    with unsettled_fits() as stops:
        for count in sorted((count for name, count in selections if name == "rfe"), reverse=True):
            while len(left) > count:
                weights_P = regression_weights(train_NP[:, left], labels_N)
                least = np.argsort(weights_P**2)[: min(step, len(left) - count)]
                left = np.delete(left, least)
            kept["rfe", count] = left
    return kept, bool(stops)


def _reduce(train_NP: Floats, labels_N: Ints, test_NP: Floats, reduction: str) -> tuple[Floats, Floats]:
    if reduction == "none":
        return train_NP, test_NP
    if reduction == "pca":
        reducer = PCA(PCA_VARIANCE, svd_solver="full").fit(train_NP)
    else:
        reducer = LinearDiscriminantAnalysis().fit(train_NP, labels_N)
    return reducer.transform(train_NP), reducer.transform(test_NP)
