"""Coefficients and training cases of a study, against fits and tables of the pooled rows by other programs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from tests.feature_models import answers_of, make_cases, make_settings, play

from msfl_common.feature_models import first_state, predict_proba
from msfl_server.results.classification import counts_by_class
from msfl_server.results.coefficients import coefficients_of
from msfl_server.results.training_inputs import TrainingInputs, characteristics_of, spread_of, training_inputs

SITES = make_cases(3, (70, 45, 30), 5)
THREE = make_cases(4, (80, 60, 50), 4, num_classes=3)


def training_of(settings: Any, sites: Any, min_patients: int = 1) -> dict[str, TrainingInputs]:
    answers = answers_of(settings, first_state(settings, 0), sites, 1, 0, min_patients)
    return {site: training_inputs(sums) for site, (sums, _) in answers.items()}


def pooled(sites: Any) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    return (
        np.concatenate([cases.features_NP for cases in sites.values()]),
        np.concatenate([cases.labels_N for cases in sites.values()]),
    )


def test_training_cases_are_those_of_the_pooled_table() -> None:
    settings = make_settings({"kind": "logistic"}, 5)
    training = training_of(settings, SITES)
    values, labels = pooled(SITES)
    together = spread_of(training.values())
    assert together is not None
    assert together.num_cases == 145
    np.testing.assert_allclose(together.mean_P, values.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(together.sd_P, values.std(axis=0, ddof=1), rtol=1e-9)
    of_last = spread_of(training.values(), [1])
    assert of_last is not None
    np.testing.assert_allclose(of_last.mean_P, values[labels == 1].mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(of_last.sd_P, values[labels == 1].std(axis=0, ddof=1), rtol=1e-9)
    for site, cases in SITES.items():
        alone = spread_of([training[site]])
        assert alone is not None
        np.testing.assert_allclose(alone.sd_P, cases.features_NP.std(axis=0, ddof=1), rtol=1e-9)
        assert training[site].cases == tuple(np.bincount(cases.labels_N, minlength=2))
    assert counts_by_class(training, {}, {}) == {"training": {site: one.cases for site, one in training.items()}}


def test_no_class_of_one_site_alone_is_told_nor_follows_from_the_others() -> None:
    both = TrainingInputs(cases=(20, 10), means=((1.0,), (2.0,)), squares=((3.0,), (4.0,)))
    one = TrainingInputs(cases=(12, 0), means=((1.5,), (0.0,)), squares=((3.0,), (0.0,)))
    told = characteristics_of({"a": both, "b": one}, ["0", "1"])
    assert [(group.of, group.name) for group in told] == [("all", ""), ("site", "a"), ("site", "b")]
    assert "class" in {group.of for group in characteristics_of({"a": both, "b": both}, ["0", "1"])}


def test_no_case_has_no_spread() -> None:
    assert spread_of([TrainingInputs(cases=(0, 0), means=((0.0,),) * 2, squares=((0.0,),) * 2)]) is None


@pytest.mark.parametrize("scaling", ["standard", "none"])
def test_unpenalised_coefficients_are_those_of_the_pooled_raw_rows(scaling: str) -> None:
    settings = make_settings({"kind": "logistic", "penalty": "none"}, 5, scaling=scaling)
    found = coefficients_of(settings, play(settings, SITES), training_of(settings, SITES))
    values, labels = pooled(SITES)
    # Fitted on standardised rows, which is where other programs converge, and brought back by hand.
    scaler = StandardScaler().fit(values)
    fit = LogisticRegression(C=np.inf, tol=1e-12, max_iter=10_000).fit(scaler.transform(values), labels)
    per_unit = fit.coef_[0] / scaler.scale_
    np.testing.assert_allclose([one.per_unit for one in found], per_unit, rtol=1e-4)
    np.testing.assert_allclose([one.per_sd for one in found], per_unit * values.std(axis=0, ddof=1), rtol=1e-4)
    assert [one.input for one in found] == list(settings.inputs)
    assert {(one.of_class, one.has_odds_ratio, one.is_used) for one in found} == {("c1", True, True)}


def test_a_coefficient_is_what_a_unit_adds_to_the_log_odds() -> None:
    """Of every linear model, whatever its preparation: against the probabilities that it gives."""
    for kind in ("logistic", "lda", "linear-svm", "least-squares"):
        for preparation in ({}, {"reduction": "pca", "num_components": 3}, {"selection": "k-best", "num_selected": 2}):
            settings = make_settings({"kind": kind}, 5, **preparation)
            state, training = play(settings, SITES), training_of(settings, SITES)
            found = coefficients_of(settings, state, training)
            row = pooled(SITES)[0].mean(axis=0)
            together = spread_of(training.values())
            assert together is not None
            for place, one in enumerate(found):
                step = np.zeros(5)
                step[place] = together.sd_P[place] / 50
                low, high = (predict_proba(settings, state, (row + sign * step)[None])[0] for sign in (-1, 1))
                change = np.log(high[1] / high[0]) - np.log(low[1] / low[0])
                assert one.per_unit * 2 * step[place] == pytest.approx(change, rel=1e-6, abs=1e-9), (kind, place)
                assert one.per_sd == pytest.approx(one.per_unit * together.sd_P[place])
                assert one.has_odds_ratio == (kind in ("logistic", "lda"))
            assert sum(one.is_used for one in found) == (2 if "selection" in preparation else 5)


def test_of_two_classes_discriminant_analysis_has_the_odds_of_the_last() -> None:
    settings = make_settings({"kind": "lda"}, 5)
    found = coefficients_of(settings, play(settings, SITES), training_of(settings, SITES))
    values, labels = pooled(SITES)
    fit = LinearDiscriminantAnalysis(solver="lsqr").fit(values, labels)
    np.testing.assert_allclose([one.per_unit for one in found], fit.coef_[0], rtol=1e-6)


def test_each_of_three_classes_has_its_own_and_no_odds_ratio() -> None:
    settings = make_settings({"kind": "logistic"}, 4, num_classes=3)
    found = coefficients_of(settings, play(settings, THREE), training_of(settings, THREE))
    assert [one.of_class for one in found] == ["c0"] * 4 + ["c1"] * 4 + ["c2"] * 4
    assert not any(one.has_odds_ratio for one in found)
    assert sum(one.per_unit for one in found[::4]) == pytest.approx(0, abs=1e-9)  # against the others' mean


@pytest.mark.parametrize("kind", ["naive-bayes", "svm-rbf", "random-forest"])
def test_other_models_have_none(kind: str) -> None:
    settings = make_settings({"kind": kind}, 5)
    state = play(settings, SITES, num_rounds=2)
    assert coefficients_of(settings, state, training_of(settings, SITES)) == ()


def test_before_the_first_sums_there_are_none() -> None:
    settings = make_settings({"kind": "logistic"}, 5)
    assert coefficients_of(settings, first_state(settings, 0), {}) == ()


def test_without_the_first_sums_a_standard_deviation_is_unknown() -> None:
    settings = make_settings({"kind": "lda"}, 5)
    found = coefficients_of(settings, play(settings, SITES), {})
    assert {one.per_sd for one in found} == {None}
