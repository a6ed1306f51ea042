"""Sums over a site's cases, from which the coordinator fits as if it had the cases.

Legend: see `msfl_common.feature_models`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from msfl_common.config_classification import Classification
from msfl_common.feature_models import State
from msfl_common.feature_models.linear import joint_probabilities, targets
from msfl_common.feature_models.state import num_scatters, scalar

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


def class_sums(settings: Classification, scaled_NP: Floats, labels_N: Labels) -> State:
    """Count, sum and squared deviations of each class, and the scatter within classes where the model needs it.

    Deviations are from the site's own means, so that no digits are lost where means are far from 0.
    """
    num_classes = len(settings.outcome.classes)
    members_KN = targets(labels_N, num_classes, num_classes).T
    counts_K, sums_KP = members_KN.sum(axis=1), members_KN @ scaled_NP
    deviations_NP = scaled_NP - (sums_KP / np.maximum(counts_K, 1)[:, None])[labels_N]
    sums = {"counts": counts_K, "sums": sums_KP, "squares": members_KN @ deviations_NP**2}
    match num_scatters(settings):
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


def hinge_sums(
    inputs_NM: Floats, labels_N: Labels, state: State, patients_N: NDArray[np.str_], min_patients: int
) -> State:
    """The same of the squared hinge loss, one class against the rest, each a block of its own.

    Only cases on the wrong side of the margin count; those of fewer than `min_patients` are left out.
    """
    coefficients_VM = state["coefficients"]
    signs_NV = 2 * targets(labels_N, len(state["counts"]), len(coefficients_VM)) - 1
    short_NV = np.maximum(1 - signs_NV * (inputs_NM @ coefficients_VM.T), 0.0)
    num_patients_V = np.array([len(np.unique(patients_N[short_N > 0])) for short_N in short_NV.T])
    short_NV = np.where(num_patients_V >= min_patients, short_NV, 0.0)
    active = [inputs_NM[short_N > 0] for short_N in short_NV.T]
    return {
        "loss": scalar((short_NV**2).sum()),
        "gradient": -2 * (signs_NV * short_NV).T @ inputs_NM,
        "curvature": np.stack([2 * rows.T @ rows for rows in active]),
    }


def link_sums(scores_NV: Floats, labels_N: Labels, state: State) -> State:
    """The same of Platt's logistic curve over each score (Platt 1999), its targets drawn in by the classes' counts."""
    counts_K, link_V2 = state["counts"], state["link"]
    wanted_NV = targets(labels_N, len(counts_K), len(link_V2))
    positives_V = counts_K[-len(link_V2) :]
    negatives_V = counts_K.sum() - positives_V
    wanted_NV = np.where(wanted_NV > 0, (positives_V + 1) / (positives_V + 2), 1 / (negatives_V + 2))
    odds_NV = scores_NV * link_V2[:, 0] + link_V2[:, 1]
    rest_NV, weights_NV = expit(odds_NV) - wanted_NV, expit(odds_NV) * expit(-odds_NV)
    inputs_NV2 = np.stack([scores_NV, np.ones_like(scores_NV)], axis=2)
    return {
        "loss": scalar((np.logaddexp(0, odds_NV) - wanted_NV * odds_NV).sum()),
        "gradient": np.einsum("nv,nvm->vm", rest_NV, inputs_NV2),
        "curvature": np.einsum("nv,nvm,nvl->vml", weights_NV, inputs_NV2, inputs_NV2),
    }
