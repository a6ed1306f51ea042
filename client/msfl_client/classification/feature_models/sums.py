"""Sums over a site's cases, from which the coordinator fits as if it had the cases.

Legend: see `msfl_common.feature_models`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from msfl_common.config.classification import Classification
from msfl_common.feature_models import State, model_of
from msfl_common.feature_models.scores import joint_probabilities, targets
from msfl_common.feature_models.settings import num_groups
from msfl_common.feature_models.state import scalar

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


def class_sums(settings: Classification, scaled_NP: Floats, labels_N: Labels) -> State:
    """Count, sum and squared deviations of each class, and the scatter within classes where the model needs it.

    Deviations are from the site's own means, so that no digits are lost where means are far from 0.
    """
    num_classes = num_groups(settings)
    members_KN = targets(labels_N, num_classes, num_classes).T
    counts_K, sums_KP = members_KN.sum(axis=1), members_KN @ scaled_NP
    deviations_NP = scaled_NP - (sums_KP / np.maximum(counts_K, 1)[:, None])[labels_N]
    sums = {"counts": counts_K, "sums": sums_KP, "squares": members_KN @ deviations_NP**2}
    match model_of(settings).num_scatters(settings):
        case 0:
            return sums
        case 1:
            return sums | {"scatter": (deviations_NP.T @ deviations_NP)[None]}
    by_class = [deviations_NP[labels_N == number] for number in range(num_classes)]
    return sums | {"scatter": np.stack([rows.T @ rows for rows in by_class])}


def logistic_sums(inputs_NM: Floats, labels_N: Labels, state: State) -> State:
    """Loss, gradient and curvature of the (multinomial) logistic loss; its curvature joins the classes in one block."""
    coefficients_VM, num_classes = state["coefficients"], len(state["counts"])
    num_scores = len(coefficients_VM)
    probabilities_NK = joint_probabilities(inputs_NM @ coefficients_VM.T)
    wanted_NV = targets(labels_N, num_classes, num_scores)
    of_score_NV = probabilities_NK if num_scores == num_classes else probabilities_NK[:, 1:]
    of_label_N = np.maximum(probabilities_NK[np.arange(len(labels_N)), labels_N], 1e-300)
    weights_NVV = of_score_NV[:, :, None] * (np.eye(num_scores) - of_score_NV[:, None, :])
    blocks = [
        [(inputs_NM * weights_NVV[:, row, column, None]).T @ inputs_NM for column in range(num_scores)]
        for row in range(num_scores)
    ]
    return {
        "loss": scalar(-np.log(of_label_N).sum()),
        "gradient": (of_score_NV - wanted_NV).T @ inputs_NM,
        "curvature": np.block(blocks)[None],
    }


def logistic_weights(inputs_NM: Floats, labels_N: Labels, state: State) -> dict[str, Floats]:
    """How much each case counts in the sums of `logistic_sums`, by their names; N x V, or N x 1."""
    num_scores = len(state["coefficients"])
    probabilities_NK = joint_probabilities(inputs_NM @ state["coefficients"].T)
    of_score_NV = probabilities_NK[:, -num_scores:]
    of_label_N = np.maximum(probabilities_NK[np.arange(len(labels_N)), labels_N], 1e-300)
    return {
        "loss": -np.log(of_label_N)[:, None],
        "gradient": np.abs(of_score_NV - targets(labels_N, len(state["counts"]), num_scores)),
        "curvature": of_score_NV * (1 - of_score_NV),
    }


def hinge_margins(inputs_NM: Floats, labels_N: Labels, state: State) -> Floats:
    """How far each case is short of each score's margin, N x V; below 0 beyond it."""
    coefficients_VM = state["coefficients"]
    signs_NV = 2 * targets(labels_N, len(state["counts"]), len(coefficients_VM)) - 1
    return np.asarray(1 - signs_NV * (inputs_NM @ coefficients_VM.T))


def hinge_sums(inputs_NM: Floats, labels_N: Labels, state: State, active_NV: NDArray[np.bool_]) -> State:
    """The same of the squared hinge loss, one class against the rest, each a block of its own.

    Only the active cases count: those on the wrong side of the margin, but for what `hinge_cases` makes of them.
    """
    coefficients_VM = state["coefficients"]
    signs_NV = 2 * targets(labels_N, len(state["counts"]), len(coefficients_VM)) - 1
    short_NV = np.where(active_NV, hinge_margins(inputs_NM, labels_N, state), 0.0)
    active = [inputs_NM[active_N] for active_N in active_NV.T]
    return {
        "loss": scalar((short_NV**2).sum()),
        "gradient": -2 * (signs_NV * short_NV).T @ inputs_NM,
        "curvature": np.stack([2 * rows.T @ rows for rows in active]),
    }


def link_weights(scores_NV: Floats, labels_N: Labels, state: State) -> dict[str, Floats]:
    """How much each case counts in the sums of `link_sums`, N x V."""
    odds_NV, wanted_NV = _odds(scores_NV, labels_N, state)
    return {
        "gradient": np.abs(expit(odds_NV) - wanted_NV),
        "curvature": expit(odds_NV) * expit(-odds_NV),
    }


def _odds(scores_NV: Floats, labels_N: Labels, state: State) -> tuple[Floats, Floats]:
    """Linked scores, and the probabilities that they should come to."""
    counts_K, link_V2 = state["counts"], state["link"]
    wanted_NV = targets(labels_N, len(counts_K), len(link_V2))
    positives_V = counts_K[-len(link_V2) :]
    negatives_V = counts_K.sum() - positives_V
    wanted_NV = np.where(wanted_NV > 0, (positives_V + 1) / (positives_V + 2), 1 / (negatives_V + 2))
    return scores_NV * link_V2[:, 0] + link_V2[:, 1], wanted_NV


def link_sums(scores_NV: Floats, labels_N: Labels, state: State) -> State:
    """The same of Platt's logistic curve over each score (Platt 1999), its targets drawn in by the classes' counts."""
    odds_NV, wanted_NV = _odds(scores_NV, labels_N, state)
    rest_NV, weights_NV = expit(odds_NV) - wanted_NV, expit(odds_NV) * expit(-odds_NV)
    inputs_NV2 = np.stack([scores_NV, np.ones_like(scores_NV)], axis=2)
    return {
        "loss": scalar((np.logaddexp(0, odds_NV) - wanted_NV * odds_NV).sum()),
        "gradient": np.einsum("nv,nvm->vm", rest_NV, inputs_NV2),
        "curvature": np.einsum("nv,nvm,nvl->vml", weights_NV, inputs_NV2, inputs_NV2),
    }
