"""Where a run of a feature model starts and ends, and what states are none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.feature_models import make_cases, make_settings, play

from msfl_common.errors import UpdateError
from msfl_common.feature_models import check_state, first_state, is_finished, num_rounds_needed, predict_proba

INPUTS = 6


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
        ("lda", "phase", np.array(1.0), "phase: lda has no such phase"),
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
