"""What of a site's predicted numbers may leave, and what is withheld."""

from __future__ import annotations

import math

import numpy as np
import pytest

from msfl_client.classification.number_evaluation import measure_numbers_at_site
from msfl_common.config.base import validate
from msfl_common.config.site import Policy
from msfl_common.config.study import StudyConfig
from msfl_common.errors import Code, RefusedError
from msfl_common.metrics.regression import REGRESSION_METRICS

STUDY = validate(
    StudyConfig,
    {
        "name": "numbers",
        "task": "regression",
        "min_patients": 1,
        "regression": {
            "outcome": {"column": "sdmt", "unit": "points", "range": [0, 110]},
            "clinical": ["age"],
            "model": {"kind": "ridge"},
        },
    },
    "study",
)


def site_of(values: list[float]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Predictions that are off by at most 1, the outcomes, and a patient a case."""
    observed_N = np.array(values)
    predicted_N = observed_N + np.random.default_rng(0).uniform(-1, 1, len(values))
    return predicted_N, observed_N, [f"p{number}" for number in range(len(values))]


def test_a_site_tells_metrics_and_the_sums_that_they_are_of() -> None:
    predicted_N, observed_N, patients = site_of([20.0 + number for number in range(20)])
    metrics = measure_numbers_at_site(predicted_N, observed_N, patients, STUDY, Policy(min_patients=5))
    assert set(metrics.estimates) == set(REGRESSION_METRICS)
    expected = [20, observed_N.sum(), predicted_N.sum()]
    expected += [observed_N @ observed_N, observed_N @ predicted_N, predicted_N @ predicted_N]
    np.testing.assert_allclose(metrics.moments, [*expected, np.abs(predicted_N - observed_N).sum()], rtol=1e-12)
    assert math.isfinite(metrics.estimates["rmse"].standard_error)


@pytest.mark.parametrize(
    ("values", "floor", "expected"),
    [
        ([20.0 + number for number in range(4)], 5, "4 patients behind a figure, at least 5 needed"),
        ([20.0, 21.0, 22.0], 2, "3 patients behind 6 sums of their numbers, at least 4 needed"),
        ([20.0] * 20, 5, "all 20 cases have one outcome"),
        ([20.0] * 17 + [30.0] * 3, 5, "3 patients have another outcome than most, at least 5 needed"),
        ([20.0] * 17 + [30.0, 31.0, 32.0], 5, "3 patients have another outcome than most, at least 5 needed"),
    ],
)
def test_numbers_of_too_few_patients_are_withheld(values: list[float], floor: int, expected: str) -> None:
    predicted_N, observed_N, patients = site_of(values)
    with pytest.raises(RefusedError, match=expected) as refused:
        measure_numbers_at_site(predicted_N, observed_N, patients, STUDY, Policy(min_patients=floor))
    assert refused.value.code is Code.TOO_FEW_PATIENTS


def test_no_interval_is_told_where_it_would_be_one_equation_too_many() -> None:
    predicted_N, observed_N, patients = site_of([20.0 + number for number in range(5)])
    metrics = measure_numbers_at_site(predicted_N, observed_N, patients, STUDY, Policy(min_patients=5))
    assert {math.isnan(found.standard_error) for found in metrics.estimates.values()} == {True}
    assert math.isfinite(metrics.estimates["rmse"].mean)
