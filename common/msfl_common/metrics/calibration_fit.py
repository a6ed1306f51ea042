"""Is a probability of 20% right one time in five? Slope and intercept of outcomes on predicted logits.

Legend: N cases, R weightings of the cases.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_CLIP = 1e-6  # a probability of 0 or 1 has no logit
_NUM_STEPS, _NUM_HALVINGS, _SMALL_STEP = 60, 20, 1e-9


def calibration_of(score_N: Floats, outcome_N: Floats, weights_RN: Floats) -> tuple[Floats, Floats]:
    """Calibration slope, and intercept with the slope fixed at 1, under each weighting of the cases.

    Maximum likelihood by Newton steps. A slope exists where the scores of the two outcomes overlap (Albert and
    Anderson, Biometrika 1984); an intercept where both outcomes are there.

    Args:
        score_N: probabilities of the outcome.
        outcome_N: 0 or 1.
        weights_RN: not negative.

    Returns:
        slope_R and intercept_R, NaN where there is none.
    """
    clipped_N = np.clip(score_N, _CLIP, 1 - _CLIP)
    logit_N = np.log(clipped_N / (1 - clipped_N))
    positive_R, negative_R = weights_RN @ outcome_N, weights_RN @ (1 - outcome_N)
    slope_R, intercept_R = np.full(len(weights_RN), np.nan), np.full(len(weights_RN), np.nan)
    if (both_R := (positive_R > 0) & (negative_R > 0)).any():
        design = np.ones((1, len(logit_N)))
        intercept_R[both_R] = fit_logistic(design, logit_N, outcome_N, weights_RN[both_R])[:, 0]
    if (overlap_R := both_R & _overlap(logit_N, outcome_N, weights_RN)).any():
        design = np.stack([np.ones_like(logit_N), logit_N])
        slope_R[overlap_R] = fit_logistic(design, np.zeros_like(logit_N), outcome_N, weights_RN[overlap_R])[:, 1]
    return slope_R, intercept_R


def standard_errors(score_N: Floats, outcome_N: Floats, patient_N: NDArray[np.int64]) -> tuple[float, float]:
    """Standard errors of slope and intercept: of the likelihood or, where larger, robust to visits of one patient.

    The robust one is the sandwich of Liang and Zeger (Biometrika 1986), times P / (P - 1) of the P patients of the
    outcome that has fewest.

    Returns:
        That of the slope and that of the intercept, NaN where there is none.
    """
    clipped_N = np.clip(score_N, _CLIP, 1 - _CLIP)
    logit_N = np.log(clipped_N / (1 - clipped_N))
    weights = np.ones((1, len(logit_N)))
    if not 0 < outcome_N.sum() < len(outcome_N):
        return math.nan, math.nan
    design = np.ones((1, len(logit_N)))
    slope = math.nan
    if _overlap(logit_N, outcome_N, weights)[0]:
        whole = np.stack([design[0], logit_N])
        slope = _robust_error(whole, np.zeros_like(logit_N), outcome_N, patient_N)
    return slope, _robust_error(design, logit_N, outcome_N, patient_N)


def _robust_error(design_QN: Floats, offset_N: Floats, outcome_N: Floats, patient_N: NDArray[np.int64]) -> float:
    """Of the last coefficient."""
    coefficients_Q = fit_logistic(design_QN, offset_N, outcome_N, np.ones((1, len(outcome_N))))[0]
    if not np.isfinite(coefficients_Q).all():
        return math.nan
    mean_N = 1 / (1 + np.exp(-np.clip(coefficients_Q @ design_QN + offset_N, -500, 500)))
    inverse_QQ = np.linalg.pinv((design_QN * mean_N * (1 - mean_N)) @ design_QN.T)
    variance, num_patients = float(inverse_QQ[-1, -1]), int(patient_N.max()) + 1
    fewest = min(len(np.unique(patient_N[outcome_N == outcome])) for outcome in (0, 1))
    if num_patients < len(outcome_N) and fewest > 1:
        score_QP = np.stack([np.bincount(patient_N, row_N * (outcome_N - mean_N)) for row_N in design_QN])
        robust_QQ = inverse_QQ @ score_QP @ score_QP.T @ inverse_QQ * fewest / (fewest - 1)
        variance = max(variance, float(robust_QQ[-1, -1]))
    return math.sqrt(variance)


def _overlap(logit_N: Floats, outcome_N: Floats, weights_RN: Floats) -> NDArray[np.bool_]:
    """Whether some positive case lies below some negative one, and some above."""
    there_RN, positive_N = weights_RN > 0, outcome_N > 0

    def edges(chosen_N: NDArray[np.bool_]) -> tuple[Floats, Floats]:
        chosen_RN = there_RN & chosen_N
        return np.where(chosen_RN, logit_N, np.inf).min(axis=1), np.where(chosen_RN, logit_N, -np.inf).max(axis=1)

    low_positive_R, high_positive_R = edges(positive_N)
    low_negative_R, high_negative_R = edges(~positive_N)
    return (low_positive_R < high_negative_R) & (low_negative_R < high_positive_R)


def fit_logistic(design_QN: Floats, offset_N: Floats, outcome_N: Floats, weights_RN: Floats) -> Floats:
    """Coefficients (R x Q) of a weighted logistic regression with an offset; NaN where the steps do not end."""
    coefficients_RQ = np.zeros((len(weights_RN), len(design_QN)))
    loss_R = _loss(coefficients_RQ, design_QN, offset_N, outcome_N, weights_RN)
    num_columns = len(design_QN)
    products = (design_QN[:, None] * design_QN[None]).reshape(num_columns**2, -1)
    open_R = np.ones(len(weights_RN), dtype=bool)
    for _ in range(_NUM_STEPS):
        now_RN, now_RQ = weights_RN[open_R], coefficients_RQ[open_R]
        mean_RN = 1 / (1 + np.exp(-np.clip(now_RQ @ design_QN + offset_N, -500, 500)))
        gradient_RQ = (now_RN * (outcome_N - mean_RN)) @ design_QN.T
        curvature_RQQ = (now_RN * mean_RN * (1 - mean_RN) @ products.T).reshape(-1, num_columns, num_columns)
        curvature_RQQ += 1e-12 * np.eye(num_columns)
        step_RQ = np.linalg.solve(curvature_RQQ, gradient_RQ[:, :, None])[:, :, 0]
        for _ in range(_NUM_HALVINGS):  # a step too far is taken back by halves
            new_R = _loss(now_RQ + step_RQ, design_QN, offset_N, outcome_N, now_RN)
            worse_R = new_R > loss_R[open_R] + 1e-9 * (1 + np.abs(loss_R[open_R]))
            if not worse_R.any():
                break
            step_RQ[worse_R] /= 2
        coefficients_RQ[open_R], loss_R[open_R] = now_RQ + step_RQ, new_R
        open_R[open_R] = np.abs(step_RQ).max(axis=1) > _SMALL_STEP * (1 + np.abs(now_RQ).max(axis=1))
        if not open_R.any():
            return coefficients_RQ
    coefficients_RQ[open_R] = np.nan
    return coefficients_RQ


def _loss(
    coefficients_RQ: Floats, design_QN: Floats, offset_N: Floats, outcome_N: Floats, weights_RN: Floats
) -> Floats:
    """Negative log-likelihood of each row of coefficients under its own weights."""
    eta_RN = coefficients_RQ @ design_QN + offset_N
    loss_R: Floats = (weights_RN * (np.logaddexp(0.0, eta_RN) - outcome_N * eta_RN)).sum(axis=1)
    return loss_R
