"""How far predicted numbers are off, with patient-clustered intervals.

Legend: N cases, P patients, R weightings or sets of cases, M moments.

Every figure follows from sums over cases, the moments, which add up over sites: all sites' figure is that of all cases
together, exactly, and a site's interval comes of its moments less those of each patient in turn.

| metric | what it is | undefined where |
|---|---|---|
| rmse | root of the mean squared error, in the outcome's unit | never |
| mae | mean absolute error, in the outcome's unit | never |
| r2 | 1 less squared errors over squared deviations from the mean; below 0: worse than the mean | one number only |
| slope | calibration slope: of a line through observed numbers over predicted ones; 1 is best | one prediction only |
| intercept | calibration in the large: mean observed less mean predicted number; 0 is best | never |

Slope and intercept as in Steyerberg, Clinical Prediction Models, 2nd edition 2019, 15.1; the intercept is that with the
slope fixed at 1, as for classes. Intervals: the jackknife over patients (Efron and Stein, Ann Stat 1981), with
Student's t of P - 1 degrees of freedom, on the scale of `intervals.mean_interval`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msfl_common.metrics.intervals import Estimate, freedom_of, mean_interval, with_interval
from msfl_common.metrics.metric import Metric

Floats = NDArray[np.float64]

MOMENTS = ("cases", "observed", "predicted", "observed^2", "observed * predicted", "predicted^2", "absolute error")
NUM_MOMENTS = len(MOMENTS)
_CONSTANT = 1e-12  # a variance of so much of the mean square is none
_ROUNDING = 1e-6


@dataclass(frozen=True, kw_only=True)
class RegressionMetric(Metric):
    """A metric of all cases together.

    Attributes:
        of_moments: its value of each of R sets of cases, from their moments, R x M; NaN where undefined.
    """

    of_moments: Callable[[Floats], Floats]


def moments_of(values_N: Floats, predicted_N: Floats) -> Floats:
    """Of each case, N x M; see `MOMENTS`."""
    ones_N, error_N = np.ones(len(values_N)), np.abs(predicted_N - values_N)
    columns = (ones_N, values_N, predicted_N, values_N**2, values_N * predicted_N, predicted_N**2, error_N)
    return np.column_stack(columns)


def measure_numbers(values_N: Floats, predicted_N: Floats, patients: Sequence[str]) -> dict[str, Estimate]:
    """Each metric with a patient-clustered 95% interval.

    Args:
        values_N: what was observed.
        predicted_N: what was predicted.
        patients: N patient names.

    Returns:
        One estimate for each name in `REGRESSION_METRICS`, in that order; undefined ones count no case.

    Raises:
        ValueError: not one prediction and patient a case, or a number that is not finite.
    """
    if not (values_N.shape == predicted_N.shape == (len(patients),)):
        raise ValueError(f"expected a prediction and a patient a case, found {predicted_N.shape}, {len(patients)}")
    if not (np.isfinite(values_N).all() and np.isfinite(predicted_N).all()):
        raise ValueError("expected finite numbers")
    moments_NM = moments_of(values_N, predicted_N)
    _, whose_N = np.unique(np.asarray(patients, dtype=np.str_), return_inverse=True)
    of_patient_PM = np.zeros((int(whose_N.max(initial=-1)) + 1, NUM_MOMENTS))
    np.add.at(of_patient_PM, whose_N, moments_NM)
    return {name: _estimate(metric, of_patient_PM) for name, metric in REGRESSION_METRICS.items()}


def _estimate(metric: RegressionMetric, of_patient_PM: Floats) -> Estimate:
    total_M, num_patients = of_patient_PM.sum(axis=0), len(of_patient_PM)
    value = figure_of(metric, total_M)
    if not math.isfinite(value):
        return Estimate(math.nan, 0, math.nan, math.nan, math.nan, 0)
    error = math.nan
    if num_patients > 1:
        without_P = metric.of_moments(total_M - of_patient_PM)
        error = math.sqrt((num_patients - 1) / num_patients * float(((without_P - without_P.mean()) ** 2).sum()))
    return with_interval(value, int(total_M[0]), error, max(1, num_patients - 1), metric.interval_range, num_patients)


def figure_of(metric: RegressionMetric, moments_M: Floats) -> float:
    """The metric of cases with these moments; NaN where undefined, as of no case."""
    return float(metric.of_moments(moments_M[None])[0]) if moments_M[0] > 0 else math.nan


def together(pooled: Estimate, metric: Metric, moments_M: Floats) -> Estimate:
    """All sites' figure: that of all cases, with the standard error that the sites' own errors give it."""
    if not isinstance(metric, RegressionMetric) or not pooled.num_cases:
        return pooled
    value = figure_of(metric, moments_M)
    freedom = freedom_of(pooled)
    low, high = mean_interval(value, pooled.standard_error, freedom, metric.interval_range)
    return Estimate(value, pooled.num_cases, pooled.standard_error, low, high, pooled.num_patients, pooled.num_sites)


def contradiction(moments_M: Floats, num_cases: int) -> str | None:
    """Why no cases have these moments; None where some have."""
    cases, observed, predicted, squares, products, predicted_squares, absolute = map(float, moments_M)
    if cases != num_cases:
        return f"expected {num_cases} cases, found {cases:g}"
    slack = _ROUNDING * (1 + squares + predicted_squares)
    if squares * cases < observed**2 - slack * cases or predicted_squares * cases < predicted**2 - slack * cases:
        return "expected no negative variance"
    squared_errors = squares - 2 * products + predicted_squares
    if squared_errors < -slack or absolute < -slack or absolute**2 > cases * (squared_errors + slack) + slack:
        return "expected errors that agree with each other"
    return None


def _mean_square(m: Floats) -> Floats:
    return np.asarray(np.maximum(m[:, 3] - 2 * m[:, 4] + m[:, 5], 0.0) / m[:, 0])


def _variance(m: Floats, first: int, square: int) -> Floats:
    """Divided by the number of cases; NaN where nothing varies."""
    mean_square = m[:, square] / m[:, 0]
    variance = mean_square - (m[:, first] / m[:, 0]) ** 2
    return np.asarray(np.where(variance > _CONSTANT * np.maximum(mean_square, 1e-300), variance, np.nan))


def _r2(m: Floats) -> Floats:
    return np.asarray(1 - _mean_square(m) / _variance(m, 1, 3))


def _slope(m: Floats) -> Floats:
    covariance = m[:, 4] / m[:, 0] - m[:, 1] * m[:, 2] / m[:, 0] ** 2
    return np.asarray(covariance / _variance(m, 2, 5))


REGRESSION_METRICS: dict[str, RegressionMetric] = {
    "rmse": RegressionMetric(
        title="RMSE",
        unit="",
        higher_is_better=False,
        lower=0.0,
        upper=math.inf,
        headline="RMSE",
        of_moments=lambda m: np.sqrt(_mean_square(m)),
        fewest=10,
    ),
    "mae": RegressionMetric(
        title="MAE",
        unit="",
        higher_is_better=False,
        lower=0.0,
        upper=math.inf,
        headline="MAE",
        of_moments=lambda m: np.asarray(m[:, 6] / m[:, 0]),
        fewest=10,
    ),
    "r2": RegressionMetric(
        title="R2",
        unit="",
        higher_is_better=True,
        lower=-math.inf,
        upper=1.0,
        headline="R2",
        of_moments=_r2,
        fewest=20,
    ),
    "slope": RegressionMetric(
        title="Calibration slope",
        unit="",
        higher_is_better=None,
        lower=-math.inf,
        upper=math.inf,
        target=1.0,
        of_moments=_slope,
        fewest=10,
    ),
    "intercept": RegressionMetric(
        title="Calibration intercept",
        unit="",
        higher_is_better=None,
        lower=-math.inf,
        upper=math.inf,
        target=0.0,
        of_moments=lambda m: np.asarray((m[:, 1] - m[:, 2]) / m[:, 0]),
        fewest=10,
    ),
}
