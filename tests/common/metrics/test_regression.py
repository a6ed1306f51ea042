"""Metrics of numbers: scikit-learn's, and pooled as if all cases were in one place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LinearRegression
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from msfl_common.errors import UpdateError
from msfl_common.messages.validation_metrics import ValidationMetrics, check_metrics
from msfl_common.metrics.intervals import pool
from msfl_common.metrics.prediction_error import prediction_error
from msfl_common.metrics.regression import (
    REGRESSION_METRICS,
    contradiction,
    measure_numbers,
    moments_of,
    together,
)

Floats = NDArray[np.float64]


def make(seed: int, num_patients: int, visits: int = 1, slope: float = 1.0) -> tuple[Floats, Floats, Sequence[str]]:
    """Observed and predicted numbers; visits of a patient share half of their error."""
    rng = np.random.default_rng(seed)
    predicted_N = rng.normal(4, 1.5, num_patients * visits)
    error_N = rng.normal(0, 0.7, num_patients).repeat(visits) + rng.normal(0, 0.7, num_patients * visits)
    patients = [f"p{number}" for number in range(num_patients) for _ in range(visits)]
    return slope * predicted_N + error_N, predicted_N, patients


def test_figures_are_scikit_learns() -> None:
    values_N, predicted_N, patients = make(0, 40, 2, slope=0.8)
    found = {name: one.mean for name, one in measure_numbers(values_N, predicted_N, patients).items()}
    line = LinearRegression().fit(predicted_N[:, None], values_N)
    assert found == pytest.approx(
        {
            "rmse": root_mean_squared_error(values_N, predicted_N),
            "mae": mean_absolute_error(values_N, predicted_N),
            "r2": r2_score(values_N, predicted_N),
            "slope": line.coef_[0],
            "intercept": values_N.mean() - predicted_N.mean(),
        }
    )


def test_all_sites_figures_are_those_of_all_cases_together() -> None:
    parts = [make(seed, size, slope=slope) for seed, size, slope in ((1, 9, 1.2), (2, 30, 0.7), (3, 14, 1.0))]
    at_sites = [measure_numbers(*part) for part in parts]
    moments_M = np.sum([moments_of(*part[:2]).sum(axis=0) for part in parts], axis=0)
    values_N, predicted_N = (np.concatenate([part[place] for part in parts]) for place in (0, 1))
    whole = measure_numbers(values_N, predicted_N, [str(number) for number in range(len(values_N))])
    for name, metric in REGRESSION_METRICS.items():
        told = {str(number): one[name] for number, one in enumerate(at_sites)}
        pooled = together(pool(told, metric.spread, metric.interval_range), metric, moments_M)
        assert pooled.mean == pytest.approx(whole[name].mean)
        assert pooled.ci95_low < pooled.mean < pooled.ci95_high
        assert pooled.num_patients == 53


@pytest.mark.parametrize(("num_sites", "num_patients", "visits"), [(1, 20, 1), (3, 10, 1), (3, 10, 3)])
def test_intervals_hold_the_truth(num_sites: int, num_patients: int, visits: int) -> None:
    """Of many samples, about 95 in 100; what may be shown of so few patients does."""
    truth = {"rmse": math.sqrt(2 * 0.7**2), "slope": 1.0, "intercept": 0.0}
    held, runs = dict.fromkeys(truth, 0), 200
    for run in range(runs):
        parts = [make(1000 * run + number, num_patients, visits) for number in range(num_sites)]
        moments_M = np.sum([moments_of(*part[:2]).sum(axis=0) for part in parts], axis=0)
        at_sites = [measure_numbers(*part) for part in parts]
        for name in truth:
            metric = REGRESSION_METRICS[name]
            told = {str(number): one[name] for number, one in enumerate(at_sites)}
            found = together(pool(told, metric.spread, metric.interval_range), metric, moments_M)
            held[name] += found.ci95_low <= truth[name] <= found.ci95_high
    assert all(0.9 <= count / runs <= 0.99 for count in held.values()), held


def test_what_is_undefined_counts_no_case() -> None:
    found = measure_numbers(np.array([1.0, 2.0, 4.0]), np.full(3, 2.0), ["a", "b", "c"])
    assert found["slope"].num_cases == 0
    assert found["r2"].mean < 0
    same = measure_numbers(np.full(3, 2.0), np.array([1.0, 2.0, 4.0]), ["a", "b", "c"])
    assert same["r2"].num_cases == 0
    assert same["rmse"].mean == pytest.approx(math.sqrt(5 / 3))


def test_moments_that_no_cases_have_are_named() -> None:
    values_N, predicted_N, _ = make(4, 12)
    moments_M = moments_of(values_N, predicted_N).sum(axis=0)
    assert contradiction(moments_M, 12) is None
    assert "11 cases" in str(contradiction(moments_M, 11))
    changed = moments_M.copy()
    changed[3] = 0.0
    assert "variance" in str(contradiction(changed, 12))
    changed = moments_M.copy()
    changed[6] *= 100
    assert "errors" in str(contradiction(changed, 12))
    told = ValidationMetrics({}, num_cases=12, seconds=0, moments=moments_M)
    check_metrics(told, 1)
    with pytest.raises(UpdateError, match=r"moments: .*errors"):
        check_metrics(replace(told, moments=changed), 1)


def test_the_interval_of_a_prediction_holds_95_of_100_numbers() -> None:
    rng, held, runs = np.random.default_rng(0), 0, 2000
    for _ in range(runs):
        error = prediction_error(moments_of(rng.normal(5, 1.3, 15), np.full(15, 5.0)).sum(axis=0), 15)
        assert error is not None
        low, high = error.interval(5.0, -100, 100)
        held += low <= rng.normal(5, 1.3) <= high
    assert 0.94 <= held / runs <= 0.965
    assert error.interval(5.0, 4.5, 5.2) == (4.5, 5.2)
    assert prediction_error(np.ones(7), 1) is None
