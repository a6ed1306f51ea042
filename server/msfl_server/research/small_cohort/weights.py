"""Which features a linear classifier's decision rests on, through every step before it.

Column scaling, selection and reduction are affine, and so is what a linear classifier makes of them: the weight of a
feature is the change of a class's score when that feature alone is one standard deviation (of the training cases, after
row scaling) higher. These weights have a common scale, whatever the steps.

Legend: N cases, P features, K classes (one of two classes: the last), F folds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msfl_common.system.seeds import derive_seed
from msfl_server.research.small_cohort.classifiers import build_classifier
from msfl_server.research.small_cohort.space import Pipeline, Scaling
from msfl_server.research.small_cohort.steps import prepare_split, unsettled_fits

Floats = NDArray[np.float64]
LINEAR = ("MLR_ENET", "MLR_L1", "MLR_L2", "SVM_LIN")


@dataclass(frozen=True)
class Weights:
    """Weights of a classifier's best pipeline, over the folds of leave-one-out.

    Attributes:
        classifier, pipeline: which.
        names: the features, P of them.
        classes: whose score they change, K of them.
        mean_KP, deviation_KP: over folds (ddof 1).
        used_P: share of folds in which the feature has a weight for any class.
    """

    classifier: str
    pipeline: Pipeline
    names: tuple[str, ...]
    classes: tuple[str, ...]
    mean_KP: tuple[tuple[float, ...], ...]
    deviation_KP: tuple[tuple[float, ...], ...]
    used_P: tuple[float, ...]

    def largest(self, count: int) -> list[int]:
        """Columns with the largest mean weights for any class, largest first."""
        return [int(column) for column in np.argsort(-np.abs(self.mean_KP).max(axis=0), kind="stable")[:count]]

    def shares(self, groups: Sequence[str | None]) -> dict[str, float]:
        """Share of each group of features in the sum of all mean weights without their signs; None: `other`."""
        size_P = np.abs(self.mean_KP).sum(axis=0)
        total: dict[str, float] = {}
        for group, size in zip(groups, size_P, strict=True):
            total[group or "other"] = total.get(group or "other", 0.0) + float(size)
        return {name: size / float(size_P.sum() or 1) for name, size in total.items()}


def split_weights(
    name: str,
    pipeline: Pipeline,
    features: Mapping[Scaling, Floats],
    labels_N: NDArray[np.int64],
    train: NDArray[np.intp],
    seed: int,
) -> Floats:
    """K x P weights of a linear classifier that was fitted on the training cases of a split.

    Args:
        name: of `LINEAR`.
        pipeline: the steps before it.
        features: N x P by row scaling.
        labels_N: the cases' classes.
        train: rows to fit on.
        seed: of the study.
    """
    known_NP = features[pipeline.row][train]
    centre_P = known_NP.mean(axis=0)
    steps_PP = centre_P + np.vstack([np.zeros(len(centre_P)), np.diag(known_NP.std(axis=0))])
    stacked: dict[Scaling, Floats] = {pipeline.row: np.vstack([features[pipeline.row], steps_PP])}
    probes = np.arange(len(labels_N), len(labels_N) + len(steps_PP))
    train_NP, probes_PP = prepare_split(stacked, labels_N, train, probes, pipeline)
    with unsettled_fits():
        model = build_classifier(name, derive_seed(seed, name)).fit(train_NP, labels_N[train])
    scores_PK = linear_scores(model, probes_PP)
    return np.asarray((scores_PK[1:] - scores_PK[0]).T)


def linear_scores(model: Any, features_NP: Floats) -> Floats:
    """N x K scores that are linear in the features.

    Of three classes or more, a support vector machine decides between each two; a class's score is the mean of its
    decisions against the others. Of two classes, there is one score, of the last.
    """
    if hasattr(model, "decision_function_shape"):
        model.decision_function_shape = "ovo"
    decision = np.asarray(model.decision_function(features_NP), np.float64)
    num_classes = len(model.classes_)
    if num_classes == 2:
        return decision.reshape(-1, 1)
    if not hasattr(model, "decision_function_shape"):
        return decision
    scores_NK = np.zeros((len(decision), num_classes))
    pairs = [(first, second) for first in range(num_classes) for second in range(first + 1, num_classes)]
    for column, (first, second) in enumerate(pairs):
        scores_NK[:, first] += decision[:, column] / (num_classes - 1)
        scores_NK[:, second] -= decision[:, column] / (num_classes - 1)
    return scores_NK


def over_folds(
    classifier: str, pipeline: Pipeline, names: Sequence[str], classes: Sequence[str], weights_FKP: Floats
) -> Weights:
    """Means and deviations of the weights of all folds."""
    told = (classes[-1],) if weights_FKP.shape[1] == 1 else tuple(classes)
    return Weights(
        classifier,
        pipeline,
        tuple(names),
        told,
        _rows(weights_FKP.mean(axis=0)),
        _rows(weights_FKP.std(axis=0, ddof=1)),
        tuple(map(float, (weights_FKP != 0).any(axis=1).mean(axis=0))),
    )


def _rows(values_KP: Floats) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(map(float, row)) for row in values_KP)
