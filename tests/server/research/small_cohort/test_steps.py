"""The tree of steps against scikit-learn's own pipelines, and what a held-out case may not do."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.feature_selection import RFE, SelectKBest, f_classif
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import SVC, SVR

from msfl_server.research.small_cohort.classifiers import CLASSIFIERS, build_classifier, class_scores
from msfl_server.research.small_cohort.measures import measure
from msfl_server.research.small_cohort.space import Pipeline, all_options, all_pipelines
from msfl_server.research.small_cohort.steps import RFE_STEP, row_scaled, scale_rows, score_split

AS_IS = Pipeline("none", "none", "none", 0, "none")


def some_cases(num_cases, num_features, num_classes, seed, effect=1.0):
    rng = np.random.default_rng(seed)
    labels = np.arange(num_cases) % num_classes
    features = rng.normal(size=(num_cases, num_features))
    features[:, :2] += effect * labels[:, None]
    return features, labels.astype(np.int64)


def sklearn_pipeline(pipeline, counts, num_features):
    steps = []
    if pipeline.column != "none":
        steps.append(StandardScaler() if pipeline.column == "standard" else MinMaxScaler())
    if pipeline.selection == "k-best":
        steps.append(SelectKBest(f_classif, k=pipeline.num_selected))
    if pipeline.selection == "rfe":
        step = max(1, int(RFE_STEP * num_features))
        for count in sorted((count for count in counts if count >= pipeline.num_selected), reverse=True):
            steps.append(RFE(SVR(kernel="linear"), n_features_to_select=count, step=step))
    if pipeline.reduction != "none":
        steps.append(PCA(0.95) if pipeline.reduction == "pca" else LinearDiscriminantAnalysis())
    return make_pipeline(*steps, LogisticRegression(tol=1e-9, max_iter=10_000))


def test_the_paper_has_297_pipelines_and_table_1_its_pairs() -> None:
    pipelines = all_pipelines(332)
    assert len(pipelines) == len(set(pipelines)) == 297
    assert pipelines[0] == AS_IS
    options = all_options(pipelines)
    assert [(o.step, o.name, len(o.pairs)) for o in options if o.step != "selection"] == [
        ("row scaling", "minmax", 99), ("row scaling", "standard", 99), ("column scaling", "minmax", 99),
        ("column scaling", "standard", 99), ("reduction", "lda", 99), ("reduction", "pca", 99),
    ]  # fmt: skip
    assert [(o.name, len(o.pairs)) for o in options if o.step == "selection"] == [
        (f"{kind}-{count}", 27) for kind in ("k-best", "rfe") for count in (10, 25, 50, 100, 150)
    ]
    with_it, without = next(o for o in options if o.name == "rfe-25").pairs[0]
    assert pipelines[with_it].features == "rfe-25"
    assert pipelines[without].selection == "none"
    assert len(all_pipelines(8)) == 27
    assert pipelines[0].name == "as it is"


@pytest.mark.slow
@pytest.mark.parametrize("num_classes", [2, 3])
def test_every_pipeline_is_what_scikit_learn_makes_of_the_same_steps(num_classes) -> None:
    features, labels = some_cases(24, 12, num_classes, seed=1)
    pipelines, rows = all_pipelines(12, (3, 6)), np.arange(24)
    train, test = rows[rows % 6 != 0], rows[rows % 6 == 0]
    found = score_split(row_scaled(features, None), labels, train, test, pipelines, ("MLR_L2",), 0)
    for number, pipeline in enumerate(pipelines):
        scaled = scale_rows(features, pipeline.row)
        oracle = sklearn_pipeline(pipeline, (3, 6), 12).fit(scaled[train], labels[train])
        expected = oracle.predict_proba(scaled[test])
        np.testing.assert_allclose(found.scores_MLTK[0, number], expected, atol=1e-5, err_msg=pipeline.name)


def test_row_scaling_uses_the_case_alone_within_its_groups() -> None:
    features = np.array([[1.0, 3.0, 10.0, 30.0], [5.0, 5.0, 0.0, 4.0]])
    groups = ("a", "a", "b", "b")
    np.testing.assert_allclose(scale_rows(features, "standard", groups), [[-1, 1, -1, 1], [0, 0, -1, 1]])
    np.testing.assert_allclose(scale_rows(features, "minmax"), [[0, 2 / 29, 9 / 29, 1], [1, 1, 0, 0.8]])
    assert scale_rows(features, "none") is features


def test_a_held_out_case_takes_no_part_in_any_fit() -> None:
    features, labels = some_cases(20, 10, 2, seed=2)
    pipelines, train, test = all_pipelines(10, (3,)), np.arange(16), np.arange(16, 20)
    altered, other = features.copy(), labels.copy()
    altered[17:] *= -1e3
    other[16:] = 1 - other[16:]
    first, second = (
        score_split(row_scaled(values, None), known, train, test, pipelines, ("SVM_LIN", "KNN"), 0).scores_MLTK
        for values, known in ((features, labels), (altered, other))
    )
    np.testing.assert_array_equal(first[:, :, 0], second[:, :, 0])


def test_random_labels_give_chance_and_a_selection_outside_the_fold_would_not() -> None:
    inside, outside = [], []
    for seed in range(3):
        features, labels = some_cases(24, 400, 2, seed=seed, effect=0.0)
        selected = SelectKBest(f_classif, k=10).fit_transform(features, labels)
        for table, pipeline, accuracies in (
            (features, Pipeline("none", "none", "k-best", 10, "none"), inside),
            (selected, AS_IS, outside),
        ):
            by_row, told = row_scaled(table, None), []
            for row in range(24):
                train, test = np.delete(np.arange(24), row), np.array([row])
                told.append(score_split(by_row, labels, train, test, (pipeline,), ("SVM_LIN",), 0).scores_MLTK[0])
            accuracies.append(measure(np.concatenate(told, axis=1), labels)["accuracy"][0])
    assert np.mean(inside) <= 0.6
    assert np.mean(outside) >= 0.85


@pytest.mark.parametrize("num_classes", [2, 3])
def test_all_twelve_classifiers_score_every_class(num_classes) -> None:
    features, labels = some_cases(60, 4, num_classes, seed=4, effect=4.0)
    assert len(CLASSIFIERS) == 12
    scaled = StandardScaler().fit_transform(features)
    found = score_split(
        row_scaled(scaled, None), labels, np.arange(48), np.arange(48, 60), (AS_IS,), tuple(CLASSIFIERS), 0
    )
    assert found.scores_MLTK.shape == (12, 1, 12, num_classes)
    for name, scores_LTK in zip(CLASSIFIERS, found.scores_MLTK, strict=True):
        assert (scores_LTK[0].argmax(axis=1) == labels[48:]).mean() >= 0.7, name


def test_two_class_decision_values_become_two_scores() -> None:
    features, labels = some_cases(20, 3, 2, seed=5)
    machine = build_classifier("SVM_RBF", 0).fit(features, labels)
    expected = SVC(kernel="rbf").fit(features, labels).predict(features)
    np.testing.assert_array_equal(class_scores(machine, features).argmax(axis=1), expected)


def test_fits_that_stop_at_their_limit_are_counted() -> None:
    features, labels = some_cases(20, 30, 2, seed=6)
    pipelines = all_pipelines(30, (5,))
    found = score_split(
        row_scaled(features * 100, None), labels, np.arange(18), np.arange(18, 20), pipelines[:3], ("MLR_L1", "KNN"), 0
    )
    assert found.stopped_M[0] > 0
    assert found.stopped_M[1] == 0


def test_a_constant_feature_is_selected_last() -> None:
    features, labels = some_cases(20, 5, 2, seed=7)
    features[:, 4] = 3.0
    steps = [Pipeline("none", "standard", "k-best", count, "none") for count in (1, 4)]
    spread = features.copy()
    spread[18:, 4] = 1e6  # at the test cases alone: a model that saw the feature would tell
    first, second = (
        score_split(row_scaled(table, None), labels, np.arange(18), np.arange(18, 20), steps, ("SVM_LIN",), 0)
        for table in (features, spread)
    )
    np.testing.assert_array_equal(first.scores_MLTK, second.scores_MLTK)


def test_the_simplest_pipelines_come_first() -> None:
    steps = [
        sum(step != "none" for step in (one.row, one.column, one.selection, one.reduction))
        for one in all_pipelines(332)
    ]
    assert all(first <= second for first, second in pairwise(steps))
