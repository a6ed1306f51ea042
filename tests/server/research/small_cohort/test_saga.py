"""The lean regression is scikit-learn's, or is not used."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, _sag

from msfl_server.research.small_cohort.saga import LeanSaga, build_saga, saga_is_the_same


@pytest.fixture
def judged_anew() -> Iterator[None]:
    saga_is_the_same.cache_clear()
    yield
    saga_is_the_same.cache_clear()


@pytest.mark.parametrize(("num_features", "num_classes"), [(60, 2), (60, 3), (2, 3)])
@pytest.mark.parametrize("hyper", [{}, {"C": 0.1}, {"C": 10.0, "l1_ratio": 0.9}])
def test_the_lean_regression_is_scikit_learns_to_the_last_bit(num_features, num_classes, hyper) -> None:
    labels = np.arange(29) % num_classes
    features = np.random.default_rng(3).normal(size=(29, num_features)) + labels[:, None]
    lean = build_saga(7, **{"l1_ratio": 0.5, **hyper})
    assert isinstance(lean, LeanSaga)
    plain = LogisticRegression(**{"solver": "saga", "l1_ratio": 0.5, "random_state": 7, **hyper})
    told = []
    for model in (lean, plain):
        with warnings.catch_warnings(record=True, action="always", category=ConvergenceWarning) as stops:
            model.fit(features, labels)
        told.append((len(stops), *model.predict_proba(features).ravel(), *model.decision_function(features).ravel()))
    assert told[0] == told[1]


def test_another_release_gets_scikit_learns_own(judged_anew, monkeypatch) -> None:
    def moved(*given: object, **named: object) -> None:
        raise TypeError("other arguments in this release")

    monkeypatch.setattr(_sag, "sag_solver", moved)
    assert isinstance(build_saga(7, 0.5), LogisticRegression)
