"""Quick fits are scikit-learn's to the last bit, or are not used; logistic regression reaches the same optimum."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC, SVR, _libsvm

from msfl_server.research.small_cohort import machines
from msfl_server.research.small_cohort.logistic import RidgeLogistic
from msfl_server.research.small_cohort.machines import (
    SVM_ITERATIONS,
    LeanMachine,
    build_machine,
    regression_weights,
)


def some_cases(num_features, num_classes, scale=1.0):
    labels = (np.arange(30) % num_classes).astype(np.int64)
    features = np.random.default_rng(3).normal(size=(30, num_features)) * scale
    features[:, :2] += scale * labels[:, None]
    return features, labels


@pytest.fixture
def judged_anew():
    machines.machines_are_the_same.cache_clear()
    yield
    machines.machines_are_the_same.cache_clear()


@pytest.mark.parametrize(("num_features", "num_classes"), [(60, 2), (5, 3)])
@pytest.mark.parametrize("kernel", ["linear", "sigmoid", "rbf", "poly"])
def test_machines_are_scikit_learns_to_the_last_bit(kernel, num_features, num_classes) -> None:
    features, labels = some_cases(num_features, num_classes)
    for hyper in ({}, {"C": 0.1} if kernel == "linear" else {"C": 10.0, "gamma": 0.01}):
        lean = build_machine(kernel, 1, **hyper).fit(features[:25], labels[:25])
        assert isinstance(lean, LeanMachine)
        plain = SVC(kernel=kernel, **hyper).fit(features[:25], labels[:25])
        for shape in ("ovr", "ovo"):
            lean.decision_function_shape = plain.decision_function_shape = shape
            np.testing.assert_array_equal(lean.decision_function(features), plain.decision_function(features))
    expected = SVR(kernel="linear", max_iter=SVM_ITERATIONS).fit(features, labels).coef_[0]
    np.testing.assert_array_equal(regression_weights(features, labels), expected)


def test_a_release_with_other_solvers_gets_the_public_classes(monkeypatch, judged_anew) -> None:
    def moved(*given, **named):
        raise TypeError("other arguments in this release")

    features, labels = some_cases(9, 3)
    before = build_machine("linear", 1).fit(features, labels).decision_function(features)
    weights = regression_weights(features, labels)
    machines.machines_are_the_same.cache_clear()
    monkeypatch.setattr(machines, "_libsvm_fit", moved)
    plain = build_machine("linear", 1)
    assert isinstance(plain, SVC)
    np.testing.assert_array_equal(plain.fit(features, labels).decision_function(features), before)
    np.testing.assert_array_equal(regression_weights(features, labels), weights)


def test_a_machine_that_stops_at_its_limit_says_so(monkeypatch) -> None:
    fit = _libsvm.fit
    monkeypatch.setattr(_libsvm, "fit", lambda *given, **named: fit(*given, **(named | {"max_iter": 1})))
    features, labels = some_cases(9, 2)
    with pytest.warns(ConvergenceWarning, match="libsvm stopped"):
        LeanMachine("linear").fit(features, labels)


@pytest.mark.parametrize(("num_features", "num_classes", "scale"), [(60, 2, 1), (60, 3, 1), (4, 4, 1), (60, 3, 100)])
@pytest.mark.parametrize("strength", [0.01, 1.0, 100.0])
def test_logistic_regression_reaches_scikit_learns_optimum(num_features, num_classes, scale, strength) -> None:
    features, labels = some_cases(num_features, num_classes, scale)
    plain = LogisticRegression(C=strength, tol=1e-10, max_iter=100_000).fit(features[:25], labels[:25])
    found = RidgeLogistic(strength).fit(features[:25], labels[:25])
    if scale == 1:  # on other scales, scikit-learn's solver stops before the optimum, and ours must be lower
        np.testing.assert_allclose(found.predict_proba(features), plain.predict_proba(features), atol=2e-5)
    lowest = [loss_of(model.decision_function(features[:25]), model, labels[:25], strength) for model in (found, plain)]
    assert lowest[0] <= lowest[1] * (1 + 1e-9)


def loss_of(scores, model, labels, strength):
    """C times the log loss and half the squares of the coefficients, which both minimize."""
    if scores.ndim == 1:
        scores = np.stack([np.zeros_like(scores), scores], axis=1)
    log_loss = np.log(np.exp(scores - scores.max(axis=1, keepdims=True)).sum(axis=1)) + scores.max(axis=1)
    log_loss = log_loss - scores[np.arange(len(labels)), labels]
    squares = model.coef_ if hasattr(model, "coef_") else model._coefficients_PK  # of two classes, the first is zero
    return strength * log_loss.sum() + 0.5 * (squares**2).sum()


def test_logistic_regression_that_cannot_settle_says_so(monkeypatch) -> None:
    monkeypatch.setattr("msfl_server.research.small_cohort.logistic.MAX_ITERATIONS", 1)
    features, labels = some_cases(9, 2)
    with pytest.warns(ConvergenceWarning, match="has not converged"):
        RidgeLogistic().fit(features, labels)
