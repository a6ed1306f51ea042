"""Hyperparameters of a classifier by grid, random and Bayesian search: same ranges, same number of evaluations.

After Appukuttan et al. (2025), section 2.3: the budget of all three is the number of points of the grid. Bayesian
search is a Gaussian process with expected improvement (Jones et al., J Glob Optim 1998) by scikit-learn: with 4 to 20
evaluations, the tree-structured estimators of the large libraries would still be drawing at random.

Legend: N cases, P features, D hyperparameters, E evaluations.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern, WhiteKernel
from sklearn.preprocessing import StandardScaler

from msfl_common.system.seeds import derive_seed
from msfl_server.research.small_cohort.classifiers import (
    CLASSIFIERS,
    Range,
    build_classifier,
    class_scores,
    grid_points,
)
from msfl_server.research.small_cohort.folds import deal_patients
from msfl_server.research.small_cohort.steps import unsettled_fits

Floats = NDArray[np.float64]
Search = Literal["grid", "random", "bayes"]
Point = tuple[float, ...]
INNER_FOLDS = 5
_CANDIDATES = 256


def tune(
    name: str, search: Search, features_NP: Floats, labels_N: NDArray[np.int64], patients: Sequence[str], seed: int
) -> dict[str, float]:
    """The hyperparameters with the best accuracy in stratified five-fold cross-validation; of equals, the first tried.

    Features are standardized within each fold, as the paper does in its third stage.

    Args:
        name: of `CLASSIFIERS`.
        search: how points are chosen.
        features_NP: training cases only, scaled by row already.
        labels_N: their classes.
        patients: their patients.
        seed: of the study.
    """
    folds_N = deal_patients(labels_N, patients, INNER_FOLDS, derive_seed(seed, "inner"))
    splits = []
    for fold in np.unique(folds_N):
        inside, outside = folds_N != fold, folds_N == fold
        scaler = StandardScaler().fit(features_NP[inside])
        scaled = scaler.transform(features_NP[inside]), scaler.transform(features_NP[outside])
        splits.append((*scaled, labels_N[inside], labels_N[outside]))

    def accuracy(point: Point) -> float:
        hyper, right = at_point(name, point), 0
        for train_NP, test_NP, known_N, truth_N in splits:
            with unsettled_fits():
                model = build_classifier(name, derive_seed(seed, name), hyper).fit(train_NP, known_N)
            right += int((class_scores(model, test_NP).argmax(axis=1) == truth_N).sum())
        return right / len(labels_N)

    ranges = list(CLASSIFIERS[name].ranges.values())
    grid = grid_points(ranges)
    rng = np.random.default_rng(derive_seed(seed, "search", name))
    if search == "grid":
        tried = [(point, accuracy(point)) for point in grid]
    elif search == "random":
        tried = [(point, accuracy(point)) for point in _random_points(len(ranges), len(grid), rng)]
    else:
        tried = bayes(accuracy, len(ranges), len(grid), rng)
    return at_point(name, max(tried, key=lambda one: one[1])[0])


def at_point(name: str, point: Point) -> dict[str, float]:
    """Hyperparameters at shares of their ranges."""
    ranges: Mapping[str, Range] = CLASSIFIERS[name].ranges
    return {key: one.at(share) for (key, one), share in zip(ranges.items(), point, strict=True)}


def bayes(
    measure: Callable[[Point], float], num_dimensions: int, budget: int, rng: np.random.Generator
) -> list[tuple[Point, float]]:
    """Points of the unit cube with their values: a third drawn at random, then where improvement is expected most.

    Args:
        measure: what is to be large; noisy values are allowed.
        num_dimensions: D.
        budget: E, evaluations in all.
        rng: source of the draws.
    """
    points = _random_points(num_dimensions, max(2, budget // 3), rng)
    tried = [(point, measure(point)) for point in points[:budget]]
    while len(tried) < budget:
        candidates = _random_points(num_dimensions, _CANDIDATES, rng)
        gain = _expected_improvement(tried, np.array(candidates))
        point = candidates[int(gain.argmax())]
        tried.append((point, measure(point)))
    return tried


def _random_points(num_dimensions: int, count: int, rng: np.random.Generator) -> list[Point]:
    return [tuple(map(float, point)) for point in rng.random((count, num_dimensions))]


def _expected_improvement(tried: Sequence[tuple[Point, float]], candidates_CD: Floats) -> Floats:
    points_ED, values_E = np.array([point for point, _ in tried]), np.array([value for _, value in tried])
    spread = float(values_E.std()) or 1.0
    values_E = (values_E - values_E.mean()) / spread
    kernel = Matern(0.3, (0.05, 5.0), nu=2.5) + WhiteKernel(0.1, (1e-3, 1.0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of few points, a length scale may end at its bound
        process = GaussianProcessRegressor(kernel).fit(points_ED, values_E)
        mean_C, deviation_C = process.predict(candidates_CD, return_std=True)
    best = process.predict(points_ED).max()
    above_C = (mean_C - best) / np.maximum(deviation_C, 1e-9)
    expected: Floats = (mean_C - best) * norm.cdf(above_C) + deviation_C * norm.pdf(above_C)
    return expected
