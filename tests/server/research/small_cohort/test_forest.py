"""The lean forest is scikit-learn's, or is not used."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.tree import _tree

from msfl_server.research.small_cohort.forest import LeanForest, build_forest, grows_the_same_trees


def some_cases(num_cases, num_features, num_classes):
    labels = (np.arange(num_cases) % num_classes).astype(np.int64)
    features = np.random.default_rng(3).normal(size=(num_cases, num_features))
    features[:, :2] += labels[:, None]
    return features, labels


@pytest.fixture
def judged_anew():
    grows_the_same_trees.cache_clear()
    yield
    grows_the_same_trees.cache_clear()


@pytest.mark.parametrize(("num_cases", "num_features", "num_classes"), [(29, 60, 2), (25, 2, 3)])
def test_the_lean_forest_is_scikit_learns_to_the_last_bit(num_cases, num_features, num_classes) -> None:
    features, labels = some_cases(num_cases, num_features, num_classes)
    for hyper in ({}, {"max_depth": 2, "min_samples_leaf": 3}):
        lean = build_forest(7, **hyper)
        assert isinstance(lean, LeanForest)
        plain = RandomForestClassifier(random_state=7, **hyper).fit(features, labels)
        np.testing.assert_array_equal(lean.fit(features, labels).predict_proba(features), plain.predict_proba(features))


def no_builder(*given):
    raise TypeError("other arguments in this release")


def deeper(splitter, fewest, leaf, weight, depth, *others, builder=_tree.DepthFirstTreeBuilder):
    return builder(splitter, fewest + 1, leaf, weight, depth, *others)


@pytest.mark.parametrize("changed", [None, no_builder, deeper])
def test_a_release_with_another_builder_gets_the_same_forest_from_the_public_class(
    monkeypatch, judged_anew, changed
) -> None:
    features, labels = some_cases(29, 20, 3)
    expected = build_forest(7).fit(features, labels).predict_proba(features)
    grows_the_same_trees.cache_clear()
    if changed is None:
        monkeypatch.delattr(_tree, "DepthFirstTreeBuilder")
    else:
        monkeypatch.setattr(_tree, "DepthFirstTreeBuilder", changed)
    plain = build_forest(7)
    assert isinstance(plain, RandomForestClassifier)
    np.testing.assert_array_equal(plain.fit(features, labels).predict_proba(features), expected)
