"""Hyperparameters of a classifier by grid, random and Bayesian search: same ranges, same number of evaluations.

After Appukuttan et al. (2025), section 2.3: the budget of all three is the number of points of the grid. Bayesian
search is Optuna's Gaussian process with expected improvement: with 4 to 20 evaluations, its tree-structured estimator
would still be drawing at random.

The paper searches with what came out best before; here that is chosen anew for each left-out case, without it.

Legend: N cases, P features, D hyperparameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from msfl_common.system.seeds import derive_seed
from msfl_server.research.small_cohort.classifiers import (
    CLASSIFIERS,
    Range,
    build_classifier,
    class_scores,
    grid_points,
)
from msfl_server.research.small_cohort.folds import deal_patients
from msfl_server.research.small_cohort.space import Pipeline, Scaling
from msfl_server.research.small_cohort.steps import prepare_split, unsettled_fits

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Floats = NDArray[np.float64]
Search = Literal["grid", "random", "bayes"]
Hyper = dict[str, float]
INNER_FOLDS = 5


def tune(
    name: str,
    search: Search,
    features: Mapping[Scaling, Floats],
    labels_N: NDArray[np.int64],
    patients: Sequence[str],
    train: NDArray[np.intp],
    pipeline: Pipeline,
    seed: int,
) -> Hyper:
    """The hyperparameters with the best accuracy in stratified five-fold cross-validation; of equals, the first tried.

    Args:
        name: of `CLASSIFIERS`.
        search: how points are chosen.
        features: N x P by row scaling.
        labels_N: the cases' classes.
        patients: their patients.
        train: rows to tune on; no other takes part.
        pipeline: the steps before the classifier, fitted within each fold.
        seed: of the study.
    """
    known_N = labels_N[train]
    folds_N = deal_patients(known_N, [patients[row] for row in train], INNER_FOLDS, derive_seed(seed, "inner"))
    splits = []
    for fold in np.unique(folds_N):
        inside, outside = train[folds_N != fold], train[folds_N == fold]
        prepared = prepare_split(features, labels_N, inside, outside, pipeline)
        splits.append((*prepared, labels_N[inside], labels_N[outside]))

    def accuracy(hyper: Hyper) -> float:
        right = 0
        for train_NP, test_NP, inside_N, truth_N in splits:
            with unsettled_fits():
                model = build_classifier(name, derive_seed(seed, name), hyper).fit(train_NP, inside_N)
            right += int((class_scores(model, test_NP).argmax(axis=1) == truth_N).sum())
        return right / len(known_N)

    ranges = CLASSIFIERS[name].ranges
    grid = grid_points(list(ranges.values()))
    own_seed = derive_seed(seed, "search", name)
    if search == "bayes":
        tried = bayes(accuracy, ranges, len(grid), own_seed)
    else:
        drawn = np.random.default_rng(own_seed).random((len(grid), len(ranges))).tolist()
        points = grid if search == "grid" else drawn
        tried = [(hyper, accuracy(hyper)) for hyper in (at_point(name, point) for point in points)]
    return max(tried, key=lambda one: one[1])[0]


def at_point(name: str, point: Sequence[float]) -> Hyper:
    """Hyperparameters at shares of their ranges."""
    return {key: one.at(share) for (key, one), share in zip(CLASSIFIERS[name].ranges.items(), point, strict=True)}


def bayes(
    measure: Callable[[Hyper], float], ranges: Mapping[str, Range], budget: int, seed: int
) -> list[tuple[Hyper, float]]:
    """Points of the ranges with their values: a third drawn at random, then where improvement is expected most.

    Args:
        measure: what is to be large; noisy values are allowed.
        ranges: of the D hyperparameters.
        budget: evaluations in all.
        seed: equal seeds and values give equal points.
    """
    import optuna
    import torch  # noqa: F401  here, for its threads to be limited below; it takes seconds

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.GPSampler(seed=seed % 2**32, n_startup_trials=max(2, budget // 3))
    study = optuna.create_study(direction="maximize", sampler=sampler)
    space: dict[str, BaseDistribution] = {key: _distribution(one) for key, one in ranges.items()}
    tried: list[tuple[Hyper, float]] = []
    with threadpool_limits(1):
        for _ in range(budget):
            trial = study.ask(space)
            hyper = {key: trial.params[key] for key in ranges}
            tried.append((hyper, measure(hyper)))
            study.tell(trial, tried[-1][1])
    return tried


def _distribution(one: Range) -> BaseDistribution:
    from optuna.distributions import FloatDistribution, IntDistribution

    if one.whole:
        return IntDistribution(round(one.low), round(one.high), log=one.log)
    return FloatDistribution(one.low, one.high, log=one.log)
