"""What each input adds to the log odds of a class."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import logit
from tests.feature_models import make_cases, make_settings, play, pooled

from msfl_common.feature_models import (
    explain,
    predict_proba,
)

INPUTS = 6


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
