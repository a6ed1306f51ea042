"""How often an outcome came true at each probability: a smooth line with its band, and few large groups beside it.

Groups of a handful of patients zigzag by chance alone. A line of log odds on predicted log odds (Cox, Biometrika 1958)
has two numbers to estimate and a standard error; it is what Van Calster et al. (BMC Med 2019, 17:230) call weak
calibration. More flexible curves ask for 200 patients with and 200 without the outcome (Van Calster et al., J Clin
Epidemiol 2016, 74:167), which few studies of multiple sclerosis have, so none is drawn. The line, in turn, is not drawn
below `FEWEST_OF_EACH` cases with and without: 10 for each number that it estimates (Peduzzi et al., J Clin Epidemiol
1996).

On three simulated sites (groups of 5 and more; 100 to 800 cases, 15 to 50% positive; well calibrated or not) the band
held the truth at the scores' quartiles in 95 or 96 of 100.

Legend: G groups (mean score, cases, positive cases), S scores.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msfl_common.metrics.calibration_fit import fit_logistic
from msfl_common.metrics.classification_curves import calibration_curve
from msfl_common.metrics.intervals import Z95, wilson
from msfl_common.metrics.score_bins import CASES, POSITIVES, SCORE

Floats = NDArray[np.float64]

FEWEST_OF_EACH = 20
CASES_A_GROUP = 40  # half of Wilson's interval of a share of .2 is .12 then
_MOST_GROUPS, _NUM_SCORES, _CLIP = 10, 60, 1e-6


@dataclass(frozen=True)
class CalibrationLine:
    """The share with the outcome by predicted probability, over the range of the groups' scores.

    Attributes:
        score_S: predicted probabilities.
        share_S: of cases with such a probability, the share with the outcome.
        low_S: lower end of the pointwise 95% band.
        high_S: its upper end.
    """

    score_S: Floats
    share_S: Floats
    low_S: Floats
    high_S: Floats


def has_enough(groups_G3: Floats, design_effect: float = 1.0) -> bool:
    """Whether there are cases enough, with the outcome and without, for a line."""
    positives = groups_G3[:, POSITIVES].sum()
    return bool(min(positives, groups_G3[:, CASES].sum() - positives) >= FEWEST_OF_EACH * design_effect)


def calibration_line(groups_G3: Floats, design_effect: float = 1.0) -> CalibrationLine | None:
    """The line of these groups; None where cases are too few, or scores do not differ or tell outcomes apart wholly.

    Args:
        groups_G3: of like scores, each taken at its mean.
        design_effect: cases that tell as much as an independent one, where patients have several.
    """
    if not has_enough(groups_G3, design_effect) or np.ptp(groups_G3[:, SCORE]) < _CLIP:
        return None
    logit_G = _logit(groups_G3[:, SCORE])
    design_2N = np.stack([np.ones(2 * len(logit_G)), np.tile(logit_G, 2)])
    outcome_N = np.repeat([1.0, 0.0], len(logit_G))
    weights_N = np.concatenate([groups_G3[:, POSITIVES], groups_G3[:, CASES] - groups_G3[:, POSITIVES]])
    positive_G, negative_G = (weights > 0 for weights in np.split(weights_N, 2))
    if max(logit_G[positive_G].min(), logit_G[negative_G].min()) > min(
        logit_G[positive_G].max(), logit_G[negative_G].max()
    ):
        return None  # outcomes do not overlap: the slope has no end
    coefficients_2 = fit_logistic(design_2N, np.zeros_like(outcome_N), outcome_N, weights_N[None])[0]
    if not np.isfinite(coefficients_2).all():
        return None
    mean_N = 1 / (1 + np.exp(-(coefficients_2 @ design_2N)))
    covariance_22 = np.linalg.pinv((design_2N * weights_N * mean_N * (1 - mean_N)) @ design_2N.T) * design_effect
    score_S = np.linspace(groups_G3[:, SCORE].min(), groups_G3[:, SCORE].max(), _NUM_SCORES)
    at_S2 = np.stack([np.ones(_NUM_SCORES), _logit(score_S)], axis=1)
    odds_S, error_S = at_S2 @ coefficients_2, np.sqrt(np.einsum("sq,qr,sr->s", at_S2, covariance_22, at_S2))
    share_S, low_S, high_S = (1 / (1 + np.exp(-(odds_S + by * error_S))) for by in (0.0, -Z95, Z95))
    return CalibrationLine(score_S, share_S, low_S, high_S)


def calibration_groups(groups_G3: Floats, design_effect: float = 1.0) -> list[tuple[float, int, int, float, float]]:
    """Neighbours joined to at most ten groups of about 40 cases or more: mean score, cases, positives, 95% interval."""
    num_cases = groups_G3[:, CASES].sum()
    num_groups = int(np.clip(num_cases // (CASES_A_GROUP * design_effect), 1, _MOST_GROUPS))
    joined = []
    for score, cases, positives in calibration_curve(groups_G3, num_groups):
        low, high = wilson(positives / cases, cases / design_effect)
        joined.append((float(score), int(cases), int(positives), low, high))
    return joined


def _logit(score_S: Floats) -> Floats:
    clipped_S = np.clip(score_S, _CLIP, 1 - _CLIP)
    return np.asarray(np.log(clipped_S / (1 - clipped_S)))
