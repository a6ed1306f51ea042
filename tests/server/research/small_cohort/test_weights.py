"""Weights of features through the steps before a classifier, against scikit-learn's own coefficients."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from msfl_server.research.small_cohort.space import STANDARD, Pipeline
from msfl_server.research.small_cohort.steps import row_scaled
from msfl_server.research.small_cohort.weights import linear_scores, over_folds, split_weights

TRAIN = np.arange(1, 24)


def some_cases(num_classes: int):
    labels = (np.arange(24) % num_classes).astype(np.int64)
    features = np.random.default_rng(0).normal(size=(24, 9)) * np.geomspace(0.1, 10, 9)
    features[:, 2] += 3 * np.geomspace(0.1, 10, 9)[2] * (labels == num_classes - 1)
    return features, labels


@pytest.mark.parametrize("num_classes", [2, 3])
def test_without_other_steps_they_are_the_coefficients_of_standardized_features(num_classes) -> None:
    features, labels = some_cases(num_classes)
    pipeline = Pipeline("none", "standard", "none", 0, "none")
    found = split_weights("MLR_L2", pipeline, row_scaled(features, None), labels, TRAIN, 0)
    scaled = StandardScaler().fit_transform(features[TRAIN])
    np.testing.assert_allclose(
        found, LogisticRegression(tol=1e-9, max_iter=10_000).fit(scaled, labels[TRAIN]).coef_, atol=1e-4
    )


@pytest.mark.parametrize(
    "pipeline",
    [
        STANDARD,
        Pipeline("none", "minmax", "none", 0, "pca"),
        Pipeline("none", "none", "k-best", 3, "lda"),
        Pipeline("standard", "standard", "rfe", 3, "none"),
    ],
)
@pytest.mark.parametrize("name", ["MLR_L2", "SVM_LIN"])
def test_through_every_step_the_feature_that_tells_a_class_weighs_most_for_it(name, pipeline) -> None:
    features, labels = some_cases(3)
    found = split_weights(name, pipeline, row_scaled(features, None), labels, TRAIN, 0)
    assert found.shape == (3, 9)
    assert found[2].argmax() == 2  # column 2 is higher in the last class
    assert abs(found.sum(axis=0)).max() < 1e-3 * abs(found).max()  # of all classes together nothing
    if pipeline.selection != "none":
        assert (found != 0).any(axis=0).sum() == 3


def test_a_machine_of_three_classes_has_the_mean_of_its_decisions_as_a_score() -> None:
    features, labels = some_cases(3)
    model = SVC(kernel="linear").fit(features, labels)
    scores = linear_scores(model, features)
    between = {pair: SVC(kernel="linear").fit(features[chosen], labels[chosen]).decision_function(features)
               for pair in ((0, 1), (0, 2), (1, 2)) for chosen in [np.isin(labels, pair)]}  # fmt: skip
    np.testing.assert_allclose(scores[:, 2], (between[0, 2] + between[1, 2]) / 2, atol=0.02)
    np.testing.assert_allclose(scores[:, 0], -(between[0, 1] + between[0, 2]) / 2, atol=0.02)


def test_means_shares_and_the_largest() -> None:
    folds = np.zeros((2, 2, 3))
    folds[0], folds[1] = [[1, 0, -4], [0, 0, 2]], [[3, 0, 0], [0, 0, 0]]
    weights = over_folds("MLR_L2", STANDARD, ("a.x", "b.x", "b.y"), ("u", "v"), folds)
    assert weights.mean_KP == ((2, 0, -2), (0, 0, 1))
    assert weights.used_P == (1, 0, 0.5)
    assert weights.deviation_KP[0][0] == pytest.approx(2**0.5)
    assert weights.largest(2) == [0, 2]
    assert weights.shares(("a", "b", "b")) == pytest.approx({"a": 2 / 5, "b": 3 / 5})
    assert over_folds("SVM_LIN", STANDARD, ("a",), ("u", "v"), np.ones((2, 1, 1))).classes == ("v",)
