"""Models of a number from sums are those that scikit-learn fits on pooled rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn import linear_model
from sklearn.decomposition import PCA
from sklearn.feature_selection import RFE, SelectKBest, f_regression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVR
from tests.feature_models import answers_of, play
from tests.regression import make_numbers, make_regression, together

from msfl_client.classification.feature_models.contribution import contribute
from msfl_client.disclosure.releases import fewest_numbers
from msfl_client.disclosure.small_groups import in_large_groups
from msfl_common.errors import RefusedError, UpdateError
from msfl_common.feature_models import explain, first_state, is_finished, predict_values
from msfl_common.messages.layouts import feature_layout, sum_of
from msfl_common.messages.records import ModelUpdate
from msfl_server.aggregation.feature_models.checks import check_contribution

INPUTS, SIZES = 9, (31, 64, 12)
KINDS: dict[str, tuple[dict[str, Any], Any]] = {
    "linear-regression": ({}, linear_model.LinearRegression()),
    "ridge": ({"alpha": 7.0}, linear_model.Ridge(alpha=7.0)),
    "elastic-net": (
        {"alpha": 0.2, "l1_ratio": 0.7},
        linear_model.ElasticNet(alpha=0.2, l1_ratio=0.7, tol=1e-12, max_iter=100_000),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("preparation", ["none", "pca", "k-best", "rfe"])
def test_numbers_are_those_of_pooled_scikit_learn(kind: str, preparation: str) -> None:
    settings_of, theirs = KINDS[kind]
    chosen = {
        "none": {},
        "pca": {"reduction": "pca", "num_components": 4},
        "k-best": {"selection": "k-best", "num_selected": 4},
        "rfe": {"selection": "rfe", "num_selected": 4},
    }[preparation]
    steps = {
        "none": [],
        "pca": [PCA(4)],
        "k-best": [SelectKBest(f_regression, k=4)],
        "rfe": [RFE(linear_model.Ridge(alpha=1.0), n_features_to_select=4)],
    }[preparation]
    settings, sites = make_regression({"kind": kind, **settings_of}, INPUTS, **chosen), make_numbers(3, SIZES, INPUTS)
    state = play(settings, sites)
    inputs_NP, values_N = together(sites)
    fitted = make_pipeline(StandardScaler(), *steps, theirs).fit(inputs_NP, values_N)
    ours_N = predict_values(settings, state, inputs_NP)
    assert np.abs(ours_N - fitted.predict(inputs_NP)).max() < 1e-6
    assert np.corrcoef(ours_N, values_N)[0, 1] > 0.5  # and they say something
    assert is_finished(settings, state)


@pytest.mark.parametrize("kind", KINDS)
def test_a_sum_of_the_sites_answers_as_under_masks_gives_the_same(kind: str) -> None:
    settings, sites = make_regression({"kind": kind}, INPUTS), make_numbers(4, SIZES, INPUTS)
    state = first_state(settings, 0)
    answers = answers_of(settings, state, sites, 1)
    layout = feature_layout(settings, state)
    added = layout.decode(sum_of(layout, [ModelUpdate(*one, 0.1, 1.0) for one in answers.values()], len(answers)))
    rows = {"all": replace(sites["site-0"], **_joined(sites))}
    whole = answers_of(settings, state, rows, 1)["all"][0]
    for name, value in whole.items():
        np.testing.assert_allclose(added.weights[name], value, rtol=1e-6, atol=1e-6 * np.abs(value).max())
    check_contribution(settings, state, added.weights, added.num_cases, added.train_loss)


def _joined(sites: Any) -> dict[str, Any]:
    inputs_NP, values_N = together(sites)
    patients = tuple(map(str, range(len(values_N))))
    zeros = np.zeros(len(values_N), np.int64)
    return {"features_NP": inputs_NP, "values_N": values_N, "patients": patients, "labels_N": zeros}


def test_what_an_input_adds_sums_to_the_number_less_the_mean() -> None:
    settings, sites = make_regression({"kind": "ridge"}, INPUTS), make_numbers(5, SIZES, INPUTS)
    state = play(settings, sites)
    case_P, mean_P = sites["site-1"].features_NP[3], state["mean"]
    number, of_mean = predict_values(settings, state, np.stack([case_P, mean_P]))
    assert sum(explain(settings, state, case_P).values()) == pytest.approx(number - of_mean)


def test_the_outcome_is_one_more_column_of_what_is_counted() -> None:
    settings = make_regression({"kind": "ridge"}, INPUTS)
    columns = INPUTS + 1
    assert fewest_numbers(settings) == 1 + 2 * columns + columns * (columns + 1) // 2
    (few,) = make_numbers(6, (7,), INPUTS).values()
    told = "7 training cases of 9 inputs and an outcome are 70 unknowns, and the first answers 76 numbers"
    with pytest.raises(RefusedError, match=told):
        contribute(settings, first_state(settings, 0), few, 0, 1, 2)


def test_patients_whose_number_sets_them_apart_are_in_no_sum() -> None:
    settings = make_regression({"kind": "ridge"}, INPUTS)
    (cases,) = make_numbers(7, (60,), INPUTS).values()
    values_N = np.zeros(60)
    values_N[:3] = (1.0, 2.0, 1.5)
    kept = in_large_groups(settings, replace(cases, values_N=values_N), 5)
    assert len(kept.labels_N) == 57
    assert kept.values_N is not None
    assert not kept.values_N.any()
    values_N[:6] = np.linspace(1, 2, 6)
    assert len(in_large_groups(settings, replace(cases, values_N=values_N), 5).labels_N) == 60


def test_an_answer_that_no_cases_give_is_refused() -> None:
    settings, sites = make_regression({"kind": "ridge"}, INPUTS), make_numbers(8, SIZES, INPUTS)
    state = first_state(settings, 0)
    answer, num_cases = answers_of(settings, state, sites, 1)["site-0"]
    scatter = answer["scatter"].copy()
    scatter[0, -1, -1] *= 2
    with pytest.raises(UpdateError, match="scatter"):
        check_contribution(settings, state, answer | {"scatter": scatter}, num_cases, 0.1)


NOT_LINEAR: dict[str, tuple[dict[str, Any], int]] = {
    "mlp": ({"hidden": (16,), "epochs_per_round": 20}, 11),
    "gradient-boosting": ({"trees_per_round": 5}, 9),
    "random-forest": ({"num_trees": 30}, 2),
}


@pytest.mark.parametrize("kind", NOT_LINEAR)
def test_what_is_not_linear_learns_the_number_of_all_sites(kind: str) -> None:
    more, num_rounds = NOT_LINEAR[kind]
    settings, sites = make_regression({"kind": kind, **more}, 5), make_numbers(9, (80, 120, 150), 5)
    unseen = {"site-2": sites.pop("site-2")}
    state = play(settings, sites, num_rounds)
    values_N = together(sites)[1]
    np.testing.assert_allclose(state["outcome"], [values_N.mean(), values_N.std()])
    inputs_NP, wanted_N = together(unseen)
    predicted_N = predict_values(settings, state, inputs_NP)
    assert 1 - ((predicted_N - wanted_N) ** 2).mean() / wanted_N.var() > 0.5


@pytest.mark.parametrize("kind", NOT_LINEAR)
def test_a_state_of_what_is_not_linear_gives_the_same_answer_twice(kind: str) -> None:
    more, _ = NOT_LINEAR[kind]
    settings, sites = make_regression({"kind": kind, **more}, 5), make_numbers(10, (60, 50), 5)
    state = play(settings, sites, 1)
    once, again = (answers_of(settings, state, sites, 2)["site-0"][0] for _ in range(2))
    assert all(np.array_equal(value, again[name]) for name, value in once.items())
    check_contribution(settings, state, once, 60, 0.1)


def test_support_vector_regression_is_that_of_pooled_scikit_learn() -> None:
    model = {"kind": "linear-svr", "epsilon": 0.3, "inverse_strength": 2.0}
    settings, sites = make_regression(model, INPUTS), make_numbers(11, SIZES, INPUTS)
    state = play(settings, sites)
    inputs_NP, values_N = together(sites)
    scaler = StandardScaler().fit(inputs_NP)
    mean, deviation = values_N.mean(), values_N.std()
    theirs = LinearSVR(
        loss="squared_epsilon_insensitive",
        dual=False,
        epsilon=0.3,
        C=2.0,
        intercept_scaling=1e4,
        tol=1e-12,
        max_iter=100_000,
    ).fit(scaler.transform(inputs_NP), (values_N - mean) / deviation)
    expected_N = mean + deviation * theirs.predict(scaler.transform(inputs_NP))
    np.testing.assert_allclose(predict_values(settings, state, inputs_NP), expected_N, atol=1e-4)
    assert is_finished(settings, state)
