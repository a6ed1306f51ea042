"""Kernels' features, trees walked by hand, and explanations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import logit
from sklearn.kernel_approximation import Nystroem
from sklearn.metrics.pairwise import polynomial_kernel, rbf_kernel
from tests.feature_models import make_cases, make_settings, play, pooled

from msfl_common.config.classification import KernelModel
from msfl_common.errors import UpdateError
from msfl_common.models.feature_models import (
    check_state,
    explain,
    first_state,
    is_finished,
    num_rounds_needed,
    predict_proba,
)
from msfl_common.models.feature_models.kernels import first_landmarks, kernel_features, kernel_map
from msfl_common.models.feature_models.trees import to_grid, tree_scores

INPUTS = 6


@pytest.mark.parametrize("kind", ["svm-rbf", "svm-poly"])
def test_features_come_closer_to_the_kernel_the_more_they_are(kind: Any) -> None:
    rows = np.random.default_rng(0).normal(size=(40, 4)) * np.array([1, 2, 3, 4])
    spread = np.array([1.0, 2, 3, 4])
    gamma = 1 / 30  # of so wide inputs
    wanted = {
        "svm-rbf": rbf_kernel(rows, gamma=gamma),
        "svm-poly": polynomial_kernel(rows, degree=2, gamma=gamma, coef0=1),
    }[kind]
    errors = []
    for num in (10, 50, 300):
        model = KernelModel(kind=kind, num_features=num, degree=2)
        landmarks = first_landmarks(model, 4, 0)
        features = kernel_features(model, landmarks, kernel_map(model, landmarks, spread), spread, rows)
        assert features.shape == (40, num)
        errors.append(np.abs(features @ features.T - wanted).mean())
    assert errors[2] < 0.01
    assert errors[2] < errors[0] / 10


def test_a_definite_kernel_matrix_gives_scikit_learns_nystroem() -> None:
    """Given the landmarks as the only cases."""
    model = KernelModel(kind="svm-sigmoid", num_features=10, gamma=0.02)
    landmarks, rows = first_landmarks(model, 30, 0), np.random.default_rng(1).normal(size=(7, 30))
    theirs = Nystroem(kernel="sigmoid", gamma=0.02, coef0=0, n_components=10, random_state=0).fit(landmarks)
    ours = kernel_features(model, landmarks, kernel_map(model, landmarks, np.ones(30)), np.ones(30), rows)
    wanted = theirs.transform(rows)
    np.testing.assert_allclose(ours @ ours.T, wanted @ wanted.T, atol=1e-9)


def test_of_an_indefinite_kernel_matrix_the_definite_part_is_kept() -> None:
    model = KernelModel(kind="svm-sigmoid", num_features=40, gamma=1.0)
    landmarks = first_landmarks(model, 3, 0)
    values, vectors = np.linalg.eigh(np.tanh(landmarks @ landmarks.T))
    assert values[0] < -0.1
    kept = np.where(values > 1e-3 * values[-1], values, 0.0)
    features = kernel_features(model, landmarks, kernel_map(model, landmarks, np.ones(3)), np.ones(3), landmarks)
    np.testing.assert_allclose(features @ features.T, (vectors * kept) @ vectors.T, atol=1e-9)


def test_no_landmark_depends_on_cases() -> None:
    settings = make_settings({"kind": "svm-sigmoid"}, INPUTS)
    landmarks = [play(settings, make_cases(seed, (30, 40), INPUTS), 3)["landmarks"] for seed in (0, 1)]
    assert np.array_equal(*landmarks)


def test_a_tree_is_walked_as_by_hand() -> None:
    trees = np.array(
        [
            [1, 0, 3, 2, 0],  # input 0 below 3?
            [0, -1, 0, 0, 10],
            [0, 1, -1, 2, 0],  # input 1 below -1?
            [0, -1, 0, 0, 20],
            [0, -1, 0, 0, 30],
            [1, -1, 0, 0, 0.5],
        ],
        dtype=float,
    )
    grid = np.array([[2, 0], [3, -2], [3, -1], [-9, 9]], dtype=float)
    assert tree_scores(trees, grid, 2)[:, 0].tolist() == [10.5, 20.5, 30.5, 10.5]
    assert tree_scores(trees[:0], grid, 2).tolist() == [[0.0]] * 4


def test_the_grid_is_a_twentieth_of_the_deviation() -> None:
    assert to_grid(np.array([[0.26, -1e9]]), np.array([2.0, 1.0])).tolist() == [[3.0, -400.0]]


@pytest.mark.parametrize("kind", ["logistic", "linear-svm", "lda", "least-squares"])
@pytest.mark.parametrize(
    "preparation", [{}, {"reduction": "pca", "num_components": 3}, {"subject_scaling": "standard"}]
)
def test_parts_of_a_linear_model_sum_to_its_log_odds(kind: str, preparation: dict[str, Any]) -> None:
    sites = make_cases(0, (40, 50), INPUTS)
    settings = make_settings({"kind": kind}, INPUTS, **preparation)
    state = play(settings, sites)
    unscaled = make_settings({"kind": kind}, INPUTS, **(preparation | {"subject_scaling": "none"}))
    at_mean = logit(predict_proba(unscaled, state, state["mean"][None])[0])
    for case in pooled(sites).features_NP[:10]:
        probabilities = predict_proba(settings, state, case[None])[0]
        predicted = probabilities.argmax()
        parts = explain(settings, state, case)
        assert list(parts) == list(settings.inputs)
        assert sum(parts.values()) == pytest.approx(logit(probabilities)[predicted] - at_mean[predicted], abs=1e-9)


@pytest.mark.parametrize("kind", ["logistic", "lda"])
def test_of_three_classes_log_odds_are_those_against_the_others_geometric_mean(kind: str) -> None:
    sites = make_cases(0, (40, 50), INPUTS, 3)
    settings = make_settings({"kind": kind}, INPUTS, 3)
    state = play(settings, sites)
    case = pooled(sites).features_NP[5]
    log = np.log(predict_proba(settings, state, np.stack([case, state["mean"]])))
    predicted = log[0].argmax()
    odds = log[:, predicted] - np.delete(log, predicted, axis=1).mean(axis=1)
    assert sum(explain(settings, state, case).values()) == pytest.approx(odds[0] - odds[1], abs=1e-9)


@pytest.mark.parametrize("kind", ["logistic", "lda", "gradient-boosting", "naive-bayes"])
def test_what_speaks_for_one_of_two_classes_speaks_against_the_other(kind: str) -> None:
    sites = make_cases(0, (40, 50), INPUTS)
    settings = make_settings({"kind": kind}, INPUTS)
    state = play(settings, sites, 6)
    for case in pooled(sites).features_NP[:4]:
        no, yes = (explain(settings, state, case, number) for number in (0, 1))
        assert any(yes.values())
        assert yes == pytest.approx({name: -effect for name, effect in no.items()})
        predicted = int(predict_proba(settings, state, case[None])[0].argmax())
        assert explain(settings, state, case) == (no, yes)[predicted]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["naive-bayes", "gradient-boosting", "random-forest", "mlp", "svm-rbf"])
def test_an_input_at_its_mean_adds_nothing(kind: str) -> None:
    sites = make_cases(0, (40, 50), INPUTS)
    settings = make_settings({"kind": kind}, INPUTS)
    state = play(settings, sites, 6)
    case = pooled(sites).features_NP[0].copy()
    case[2] = state["mean"][2]
    parts = explain(settings, state, case)
    assert parts[settings.inputs[2]] == 0.0
    probabilities = predict_proba(settings, state, case[None])[0]
    moved = case.copy()
    moved[0] = state["mean"][0]
    predicted = probabilities.argmax()
    wanted = logit(probabilities)[predicted] - logit(predict_proba(settings, state, moved[None])[0])[predicted]
    assert parts[settings.inputs[0]] == pytest.approx(wanted, abs=1e-9)
    assert wanted != 0


def test_before_the_first_sums_every_class_is_as_likely() -> None:
    settings = make_settings({"kind": "gradient-boosting"}, INPUTS, 4)
    state = first_state(settings, 0)
    assert predict_proba(settings, state, np.ones((2, INPUTS))).tolist() == [[0.25] * 4] * 2
    assert not is_finished(settings, state)


@pytest.mark.parametrize(
    ("kind", "num"), [("lda", 1), ("random-forest", 2), ("logistic", 16), ("svm-poly", 31), ("mlp", None)]
)
def test_rounds_that_a_model_needs(kind: str, num: int | None) -> None:
    assert num_rounds_needed(make_settings({"kind": kind}, INPUTS)) == num


@pytest.mark.parametrize(
    ("kind", "name", "value", "told"),
    [
        ("logistic", "phase", np.array(7.0), "phase: expected one of 0, 1, 2, 3"),
        ("logistic", "phase", np.array(2.0), "phase: logistic has no such phase"),
        ("logistic", "phase", np.zeros(2), "phase: expected one of"),
        ("logistic", "coefficients", np.zeros((1, 3)), "coefficients: expected float64"),
        ("logistic", "coefficients", np.zeros((1, 7), np.float32), "coefficients: expected float64"),
        ("logistic", "coefficients", np.full((1, 7), np.nan), "coefficients: 7 values are not finite"),
        ("logistic", "spread", np.zeros(6), "spread: expected figures above 0"),
        ("logistic", "counts", np.array([3.0, 0.0]), "counts: expected figures above 0"),
        ("logistic", "more", np.zeros(1), "they differ in"),
        ("naive-bayes", "class_variances", np.zeros((2, 6)), "class_variances: expected figures above 0"),
        ("gradient-boosting", "trees", np.zeros((1, 5)), "trees: the nodes from row 0 on make no whole tree"),
        ("gradient-boosting", "trees", np.zeros((0, 6)), "trees: expected float64"),
    ],
)
def test_a_state_that_the_model_cannot_be_in_is_refused(kind: str, name: str, value: Any, told: str) -> None:
    settings = make_settings({"kind": kind}, INPUTS)
    state = play(settings, make_cases(0, (40, 50), INPUTS), 1)
    check_state(settings, state)
    with pytest.raises(UpdateError, match=told):
        check_state(settings, state | {name: value})
    with pytest.raises(UpdateError, match=r"they differ in .*'mean'"):
        check_state(settings, {key: value for key, value in state.items() if key != "mean"})
