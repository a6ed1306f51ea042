"""Models from sums are those that scikit-learn fits on pooled rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.feature_selection import RFE, SelectKBest, f_classif
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from tests.feature_models import answers_of, make_cases, make_settings, play, pooled

from msfl_common.dataset import Dataset
from msfl_common.errors import RunError, UpdateError
from msfl_common.feature_models import first_state, is_finished, num_rounds_needed, predict_proba
from msfl_common.feature_models.newton import minimise_with_l1
from msfl_common.feature_models.preparation import prepare
from msfl_server.aggregation.feature_models.combine import combine

Floats = NDArray[np.float64]
CLASSES = pytest.mark.parametrize("num_classes", [2, 3])
INPUTS, SIZES = 9, (31, 64, 12)


def hard_sites(num_classes: int, seed: int = 0) -> dict[str, Dataset]:
    """Unequal sites, one of which has one class only; one input is constant, at a value that adds up with rounding."""
    sites = make_cases(seed, SIZES, INPUTS, num_classes)
    names = next(iter(sites.values())).names
    sites["one-class"] = Dataset(names, sites["site-2"].features_NP * 1.1, np.zeros(12, np.int64), ("x",) * 12)
    for cases in sites.values():
        cases.features_NP[:, 4] = 0.1
    return sites


def standardised(rows: Dataset) -> Floats:
    scaled: Floats = StandardScaler().fit_transform(rows.features_NP)
    return scaled


@CLASSES
@pytest.mark.parametrize("kind", ["lda", "naive-bayes"])
@pytest.mark.parametrize("reduction", ["none", "pca"])
def test_closed_forms_are_scikit_learns(kind: str, num_classes: int, reduction: str) -> None:
    sites = hard_sites(num_classes)
    settings = make_settings({"kind": kind}, INPUTS, num_classes, reduction=reduction, num_components=4)
    state, rows = play(settings, sites), pooled(sites)
    model = LinearDiscriminantAnalysis(solver="lsqr") if kind == "lda" else GaussianNB()
    steps = [StandardScaler(), PCA(4), model] if reduction == "pca" else [StandardScaler(), model]
    theirs = make_pipeline(*steps).fit(rows.features_NP, rows.labels_N)
    difference = predict_proba(settings, state, rows.features_NP) - theirs.predict_proba(rows.features_NP)
    assert np.abs(difference).max() < 1e-9
    assert is_finished(settings, state)
    assert num_rounds_needed(settings) == 1


def test_coefficients_of_lda_are_scikit_learns() -> None:
    sites = hard_sites(3)
    state, rows = play(make_settings({"kind": "lda"}, INPUTS, 3), sites), pooled(sites)
    theirs = LinearDiscriminantAnalysis(solver="lsqr").fit(standardised(rows), rows.labels_N)
    np.testing.assert_allclose(state["coefficients"][:, :-1], theirs.coef_, atol=1e-9)
    np.testing.assert_allclose(state["coefficients"][:, -1], theirs.intercept_, atol=1e-9)


@CLASSES
@pytest.mark.parametrize("scaling", ["none", "standard"])
def test_least_squares_are_scikit_learns(num_classes: int, scaling: str) -> None:
    sites = hard_sites(num_classes)
    settings = make_settings({"kind": "least-squares"}, INPUTS, num_classes, scaling=scaling)
    state, rows = play(settings, sites), pooled(sites)
    wanted = np.eye(num_classes)[rows.labels_N][:, (1 if num_classes == 2 else 0) :]
    ours = np.column_stack([prepare(settings, state, rows.features_NP), np.ones(len(wanted))]) @ state["coefficients"].T
    theirs = LinearRegression().fit(standardised(rows), wanted).predict(standardised(rows))
    np.testing.assert_allclose(ours, theirs, atol=1e-9)


def test_more_inputs_than_cases_are_borne() -> None:
    sites = make_cases(0, (6, 7), 40)
    settings = make_settings({"kind": "least-squares"}, 40)
    state, rows = play(settings, sites), pooled(sites)
    ours = prepare(settings, state, rows.features_NP) @ state["coefficients"][0, :-1] + state["coefficients"][0, -1]
    theirs = LinearRegression().fit(standardised(rows), rows.labels_N)
    np.testing.assert_allclose(state["coefficients"][0, :-1], theirs.coef_, atol=1e-8)
    np.testing.assert_allclose(ours, rows.labels_N, atol=1e-8)
    assert np.isfinite(predict_proba(settings, play(make_settings({"kind": "lda"}, 40), sites), rows.features_NP)).all()


def test_scaling_is_scikit_learns_far_from_zero() -> None:
    sites = make_cases(0, SIZES, INPUTS)
    for cases in sites.values():
        cases.features_NP[:, 1] = 1e6 + cases.features_NP[:, 1] / cases.features_NP[:, 1].std()
    settings = make_settings({"kind": "naive-bayes"}, INPUTS)
    state, rows = play(settings, sites), pooled(sites)
    np.testing.assert_allclose(prepare(settings, state, rows.features_NP), standardised(rows), atol=1e-9)
    np.testing.assert_allclose(state["spread"], 1.0, atol=1e-12)


@CLASSES
def test_components_are_scikit_learns_up_to_a_stated_sign(num_classes: int) -> None:
    sites = hard_sites(num_classes)
    settings = make_settings({"kind": "lda"}, INPUTS, num_classes, reduction="pca", num_components=5)
    state, rows = play(settings, sites), pooled(sites)
    pca = PCA(5, svd_solver="full").fit(standardised(rows))
    largest = pca.components_[np.arange(5), np.abs(pca.components_).argmax(axis=1)]
    wanted = pca.transform(standardised(rows)) * np.sign(largest)
    np.testing.assert_allclose(prepare(settings, state, rows.features_NP), wanted, atol=1e-8)


def test_components_beyond_the_cases_are_nothing() -> None:
    settings = make_settings({"kind": "lda"}, 30, reduction="pca", num_components=20)
    state = play(settings, make_cases(0, (5, 6), 30))
    assert (state["projection"][:, 10:] == 0).all()
    assert (np.abs(state["projection"][:, :10]).max(axis=0) > 0.01).all()


@CLASSES
def test_the_best_inputs_are_scikit_learns(num_classes: int) -> None:
    sites = make_cases(3, SIZES, 20, num_classes)
    rows = pooled(sites)
    settings = make_settings({"kind": "naive-bayes"}, 20, num_classes, selection="k-best", num_selected=6)
    kept = np.flatnonzero(play(settings, sites)["projection"].any(axis=1))
    theirs = SelectKBest(f_classif, k=6).fit(rows.features_NP, rows.labels_N)
    assert kept.tolist() == np.flatnonzero(theirs.get_support()).tolist()
    assert kept.tolist() != list(range(6))


@CLASSES
def test_elimination_is_scikit_learns(num_classes: int) -> None:
    sites = make_cases(4, SIZES, 20, num_classes)
    rows = pooled(sites)
    settings = make_settings({"kind": "naive-bayes"}, 20, num_classes, selection="rfe", num_selected=5)
    kept = np.flatnonzero(play(settings, sites)["projection"].any(axis=1))
    theirs = RFE(RidgeClassifier(alpha=1.0), n_features_to_select=5).fit(standardised(rows), rows.labels_N)
    assert kept.tolist() == np.flatnonzero(theirs.get_support()).tolist()


def test_a_constant_input_is_chosen_last() -> None:
    settings = make_settings({"kind": "naive-bayes"}, INPUTS, selection="k-best", num_selected=INPUTS - 1)
    assert not play(settings, hard_sites(2))["projection"][4].any()


LOGISTIC: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"penalty": "l2", "inverse_strength": 0.3}, {"C": 0.3, "solver": "newton-cholesky", "tol": 1e-12}),
    ({"penalty": "none"}, {"C": np.inf, "solver": "lbfgs", "tol": 1e-12}),
    ({"penalty": "l1", "inverse_strength": 0.4}, {"C": 0.4, "l1_ratio": 1.0, "solver": "saga", "tol": 1e-10}),
    (
        {"penalty": "elastic-net", "l1_ratio": 0.3, "inverse_strength": 2.0},
        {"C": 2.0, "l1_ratio": 0.3, "solver": "saga", "tol": 1e-10},
    ),
]


@CLASSES
@pytest.mark.parametrize(("ours", "theirs"), LOGISTIC)
def test_logistic_regression_is_scikit_learns(ours: dict[str, Any], theirs: dict[str, Any], num_classes: int) -> None:
    sites = hard_sites(num_classes)
    settings = make_settings({"kind": "logistic", **ours}, INPUTS, num_classes)
    state, rows = play(settings, sites), pooled(sites)
    model = LogisticRegression(max_iter=100_000, random_state=0, **theirs).fit(standardised(rows), rows.labels_N)
    difference = predict_proba(settings, state, rows.features_NP) - model.predict_proba(standardised(rows))
    assert np.abs(difference).max() < 1e-5
    if ours["penalty"] != "none":
        np.testing.assert_allclose(state["coefficients"][:, :-1], model.coef_, atol=1e-5)
    if ours["penalty"] == "l1":
        assert ((state["coefficients"][:, :-1] == 0) == (np.abs(model.coef_) < 1e-7)).all()
        assert (state["coefficients"][:, :-1] == 0).sum() > num_classes


@CLASSES
@pytest.mark.parametrize("strength", [0.05, 10.0])
def test_a_linear_machine_is_scikit_learns(num_classes: int, strength: float) -> None:
    sites = hard_sites(num_classes)
    settings = make_settings({"kind": "linear-svm", "inverse_strength": strength}, INPUTS, num_classes)
    state, rows = play(settings, sites), pooled(sites)
    # So large a stand-in for the 1 beside the inputs leaves the intercept unpenalised.
    svm = LinearSVC(C=strength, dual=False, tol=1e-13, max_iter=100_000, intercept_scaling=1e4)
    svm.fit(standardised(rows), rows.labels_N)
    np.testing.assert_allclose(state["coefficients"][:, :-1], svm.coef_, atol=1e-5)
    np.testing.assert_allclose(state["coefficients"][:, -1], svm.intercept_, atol=1e-5)


def test_a_machine_with_l1_meets_the_optimality_conditions() -> None:
    sites = hard_sites(2)
    settings = make_settings({"kind": "linear-svm", "penalty": "l1", "inverse_strength": 0.05}, INPUTS)
    state, rows = play(settings, sites), pooled(sites)
    inputs, signs = standardised(rows), 2.0 * rows.labels_N - 1
    weights, intercept = state["coefficients"][0, :-1], state["coefficients"][0, -1]
    short = np.maximum(1 - signs * (inputs @ weights + intercept), 0)
    slope = -2 * 0.05 * (signs * short) @ inputs
    assert abs((signs * short).sum()) < 1e-5
    np.testing.assert_allclose(slope[weights != 0], -np.sign(weights[weights != 0]), atol=1e-5)
    assert (np.abs(slope[weights == 0]) <= 1 + 1e-6).all()
    assert 0 < (weights == 0).sum() < INPUTS


@CLASSES
def test_platts_curve_is_an_unpenalised_logistic_of_the_scores(num_classes: int) -> None:
    sites = hard_sites(num_classes)
    state, rows = play(make_settings({"kind": "linear-svm"}, INPUTS, num_classes), sites), pooled(sites)
    scores = np.column_stack([standardised(rows), np.ones(len(rows.labels_N))]) @ state["coefficients"].T
    for number, (slope, offset) in enumerate(state["link"]):
        is_positive = rows.labels_N == (number if num_classes > 2 else 1)
        positives, negatives = is_positive.sum(), (~is_positive).sum()
        wanted = np.where(is_positive, (positives + 1) / (positives + 2), 1 / (negatives + 2))
        rest = 1 / (1 + np.exp(-slope * scores[:, number] - offset)) - wanted
        assert abs(rest.sum()) < 1e-6  # both derivatives are 0
        assert abs(rest @ scores[:, number]) < 1e-6


def test_the_quadratic_with_l1_is_minimised() -> None:
    """Strongly correlated coefficients, from starts with the wrong signs: no direction leads further down."""
    num_zeros = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        rows = rng.normal(size=(15, 3)) @ rng.normal(size=(3, 8)) + 0.3 * rng.normal(size=(15, 8))
        curvature, gradient, start = rows.T @ rows, 10 * rng.normal(size=8), rng.normal(size=8)
        l1 = np.array([4.0] * 7 + [0.0])
        found = minimise_with_l1(curvature, gradient, start, l1)
        slope = gradient + curvature @ (found - start)
        np.testing.assert_allclose(slope[found != 0], -(l1 * np.sign(found))[found != 0], atol=1e-8)
        assert (np.abs(slope[found == 0]) <= l1[found == 0] + 1e-8).all()
        num_zeros += int((found == 0).sum())
    assert num_zeros > 40


def test_separable_cases_without_penalty_come_to_an_end() -> None:
    sites = make_cases(0, (8, 9), 30)
    settings = make_settings({"kind": "logistic", "penalty": "none"}, 30)
    state, rows = play(settings, sites), pooled(sites)
    assert is_finished(settings, state)
    assert (predict_proba(settings, state, rows.features_NP).argmax(axis=1) == rows.labels_N).all()


FITTED: list[dict[str, Any]] = [
    {"kind": "logistic", "penalty": "elastic-net"},
    {"kind": "svm-rbf", "num_features": 30},
    {"kind": "svm-poly", "num_features": 30},
    {"kind": "svm-sigmoid", "num_features": 30},
]


@CLASSES
@pytest.mark.parametrize("model", FITTED)
def test_sites_make_what_one_site_with_all_cases_makes(model: dict[str, Any], num_classes: int) -> None:
    sites = hard_sites(num_classes)
    settings = make_settings(model, INPUTS, num_classes)
    apart, rows = play(settings, sites), pooled(sites)
    together = play(settings, {"all": rows})
    assert is_finished(settings, apart)
    difference = predict_proba(settings, apart, rows.features_NP) - predict_proba(settings, together, rows.features_NP)
    assert np.abs(difference).max() < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["linear-svm", "mlp", "gradient-boosting", "random-forest"])
def test_the_order_of_answers_changes_no_bit_nor_the_state_before(kind: str) -> None:
    sites = make_cases(0, SIZES, INPUTS, 3)
    settings = make_settings({"kind": kind}, INPUTS, 3)
    state = first_state(settings, 0)
    for number in (1, 2, 3):
        if is_finished(settings, state):
            break
        answers = answers_of(settings, state, sites, number)
        before = {name: value.copy() for name, value in state.items()}
        after = combine(settings, state, answers)
        turned = combine(settings, state, dict(reversed(answers.items())))
        assert_same(after, turned)
        assert_same(state, before)
        state = after


def assert_same(one: Mapping[str, Floats], other: Mapping[str, Floats]) -> None:
    assert list(one) == list(other)
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_a_site_that_stays_away_for_a_round_does_not_stop_the_search() -> None:
    sites = make_cases(0, SIZES, INPUTS)
    settings = make_settings({"kind": "logistic"}, INPUTS)
    state = first_state(settings, 0)
    for number in range(1, 60):
        if is_finished(settings, state):
            break
        there = {name: cases for name, cases in sites.items() if number != 3 or name != "site-1"}
        state = combine(settings, state, answers_of(settings, state, there, number))
    assert number < 20
    np.testing.assert_allclose(state["coefficients"], play(settings, sites)["coefficients"], atol=1e-6)


def test_a_step_that_goes_up_is_halved() -> None:
    sites = make_cases(0, SIZES, INPUTS)
    settings = make_settings({"kind": "logistic"}, INPUTS)
    state = first_state(settings, 0)
    for number in (1, 2):
        state = combine(settings, state, answers_of(settings, state, sites, number))
    far = state | {
        "coefficients_direction": 64 * state["coefficients_direction"],
        "coefficients": state["coefficients_accepted"] + 64 * state["coefficients_direction"],
    }
    shorter = combine(settings, far, answers_of(settings, far, sites, 3))
    np.testing.assert_allclose(
        shorter["coefficients"], state["coefficients_accepted"] + 32 * state["coefficients_direction"]
    )
    for number in range(4, 40):
        if is_finished(settings, shorter):
            break
        shorter = combine(settings, shorter, answers_of(settings, shorter, sites, number))
    np.testing.assert_allclose(shorter["coefficients"], play(settings, sites)["coefficients"], atol=1e-6)


def test_a_perceptrons_layers_are_averaged_by_cases() -> None:
    sites = make_cases(0, (10, 30), INPUTS)
    settings = make_settings({"kind": "mlp", "hidden": (4,)}, INPUTS)
    state = play(settings, sites, 1)
    answers = answers_of(settings, state, sites, 2)
    after = combine(settings, state, answers)
    for name, value in answers["site-0"][0].items():
        np.testing.assert_allclose(after[name], 0.25 * value + 0.75 * answers["site-1"][0][name], rtol=1e-12)


def test_a_class_that_nobody_has_is_named() -> None:
    sites = make_cases(0, (10, 12), INPUTS)
    with pytest.raises(RunError, match=r"class c2: no training case at any site .* `outcome.classes` without it"):
        play(make_settings({"kind": "lda"}, INPUTS, 3), sites)


def test_nobody_is_not_averaged() -> None:
    settings = make_settings({"kind": "lda"}, INPUTS)
    with pytest.raises(RunError, match=r"no site contributed; .* `rounds.quorum`"):
        combine(settings, first_state(settings, 0), {})


@pytest.mark.parametrize(
    ("row", "column", "value"),
    [(0, 1, 99.0), (0, 0, 0.0), (0, 3, 1000.0), (0, 3, -1.0), (1, 0, 1.0), (0, 2, 0.5), (0, 4, np.nan), (0, 1, 0.5)],
)
def test_a_damaged_tree_is_refused_by_its_site(row: int, column: int, value: float) -> None:
    sites = make_cases(0, (40, 40), INPUTS)
    settings = make_settings({"kind": "gradient-boosting"}, INPUTS)
    state = play(settings, sites, 1)
    answers = answers_of(settings, state, sites, 2)
    combine(settings, state, answers)  # whole, it is taken
    answers["site-1"][0]["trees"][row, column] = value
    with pytest.raises(UpdateError, match="site-1: trees"):
        combine(settings, state, answers)


def test_too_many_trees_are_refused() -> None:
    sites = make_cases(0, (40, 40), INPUTS)
    settings = make_settings({"kind": "random-forest", "num_trees": 3}, INPUTS)
    state = play(settings, sites, 1)
    answers = answers_of(settings, state, sites, 2)
    trees = answers["site-0"][0]["trees"]
    answers["site-0"][0]["trees"] = np.concatenate([trees, trees])
    with pytest.raises(UpdateError, match="site-0: expected 3 trees, found 6"):
        combine(settings, state, answers)
