"""scikit-learn's random forest without what it spends on a tree of thirty cases.

`RandomForestClassifier` looks up signatures, clones and validates for each of its trees: on 30 cases, nine tenths of a
millisecond of one. Here the same compiled tree builder gets the same seeds, and the forest is the same to the last bit.
What the trees draw depends on the seed and the number of cases alone, and is drawn once for all fits.
The builder is not public API. So it is held against `RandomForestClassifier` once in a process, and where a release of
scikit-learn has moved it or grows other trees, that class is taken: the same figures, later.

Legend: N cases, P features, K classes.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier

_MAX_SEED = np.iinfo(np.int32).max


class LeanForest:
    """`RandomForestClassifier(n_estimators=num_trees, ...)`, for finite features and labels 0..K-1."""

    def __init__(self, seed: int, num_trees: int = 100, max_depth: int = _MAX_SEED, min_samples_leaf: int = 1) -> None:
        self._seed = seed
        self._num_trees = num_trees
        self._max_depth = max_depth
        self._min_leaf = min_samples_leaf
        self._trees: list[Any] = []

    def fit(self, features_NP: NDArray[np.floating[Any]], labels_N: NDArray[np.int64]) -> Self:
        """Grow every tree on a bootstrap sample of the cases, a square root of the features at each split."""
        # Here, where a release that has none of them is met by `grows_the_same_trees`.
        from sklearn.tree._criterion import Gini
        from sklearn.tree._splitter import BestSplitter
        from sklearn.tree._tree import DepthFirstTreeBuilder, Tree

        num_cases, num_features = features_NP.shape
        inputs_NP = np.ascontiguousarray(features_NP, np.float32)
        targets_N1 = labels_N.astype(np.float64)[:, None]
        classes = np.array([labels_N.max() + 1], np.intp)
        random = _OneNumber()
        most = max(1, int(np.sqrt(num_features)))
        splitter = BestSplitter(Gini(1, classes), most, self._min_leaf, 0.0, random, None)
        fewest = max(2, 2 * self._min_leaf)
        builder = DepthFirstTreeBuilder(splitter, fewest, self._min_leaf, 0.0, self._max_depth, 0.0)
        self._trees = []
        for drawn_N, random.number in _draws(self._seed, self._num_trees, num_cases):
            tree = Tree(num_features, classes, 1)
            builder.build(tree, inputs_NP, targets_N1, drawn_N, None)
            self._trees.append(tree)
        return self

    def predict_proba(self, features_NP: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """N x K: shares of the classes in a case's leaves, averaged over trees."""
        inputs_NP = np.ascontiguousarray(features_NP, np.float32)
        total: NDArray[np.float64] = sum(tree.predict(inputs_NP) for tree in self._trees)
        return total / self._num_trees


class _OneNumber:
    """What a splitter takes for its source of random numbers: it draws one for each tree."""

    number = 0

    def randint(self, low: int, high: int) -> int:  # noqa: ARG002
        """The number of the tree that is next."""
        return self.number


@lru_cache(64)
def _draws(seed: int, num_trees: int, num_cases: int) -> tuple[tuple[NDArray[np.float64], int], ...]:
    """How often each tree draws each case, and the number its splitter begins with: the same for all features."""
    seeds, random = np.random.RandomState(seed), np.random.RandomState(0)
    found = []
    for tree_seed in [seeds.randint(_MAX_SEED) for _ in range(num_trees)]:
        random.seed(tree_seed)
        drawn_N = np.bincount(random.randint(0, num_cases, num_cases), minlength=num_cases).astype(np.float64)
        random.seed(tree_seed)
        found.append((drawn_N, int(random.randint(0, _MAX_SEED))))
    return tuple(found)


def build_forest(seed: int, **hyper: int) -> LeanForest | RandomForestClassifier:
    """An unfitted random forest of 100 trees; the lean one where it is the same as scikit-learn's."""
    return LeanForest(seed, **hyper) if grows_the_same_trees() else RandomForestClassifier(random_state=seed, **hyper)


@cache
def grows_the_same_trees() -> bool:
    """Whether scikit-learn, as it is installed, gives both forests the same probabilities to the last bit."""
    features_NP = np.random.default_rng(0).normal(size=(40, 12))
    labels_N = (np.arange(40) % 3).astype(np.int64)
    for hyper in ({}, {"max_depth": 2, "min_samples_leaf": 3}):
        try:
            lean = LeanForest(1, num_trees=20, **hyper).fit(features_NP[:30], labels_N[:30])
            found_NK = lean.predict_proba(features_NP)
        except Exception:  # a release that has moved or changed what is private: whatever it says, it is not the same
            return False
        plain = RandomForestClassifier(20, random_state=1, **hyper).fit(features_NP[:30], labels_N[:30])
        if not np.array_equal(found_NK, plain.predict_proba(features_NP)):
            return False
    return True
