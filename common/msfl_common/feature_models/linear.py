"""Linear models on arrays: scores, and the step from scores to probabilities.

Legend: see the package.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from msfl_common.config.classification import Classification, KernelModel
from msfl_common.feature_models.kernels import kernel_features
from msfl_common.feature_models.preparation import prepare
from msfl_common.feature_models.state import State

Floats = NDArray[np.float64]


def design(settings: Classification, state: State, features_NP: Floats) -> Floats:
    """What a linear model multiplies its coefficients with: prepared inputs or a kernel's features, and a 1; N x M."""
    inputs = prepare(settings, state, features_NP)
    if isinstance(settings.model, KernelModel):
        landmarks_DQ, map_DD, spread_Q = state["landmarks"], state["kernel_map"], state["spread"]
        inputs = kernel_features(settings.model, landmarks_DQ, map_DD, spread_Q, inputs)
    return np.column_stack([inputs, np.ones(len(inputs))])


def targets(labels_N: NDArray[np.int64], num_classes: int, num_scores: int) -> Floats:
    """1 where a case is of the score's class, else 0, N x V; one score is of the last of two classes."""
    one_hot_NK = np.eye(num_classes)[labels_N]
    return one_hot_NK if num_scores == num_classes else one_hot_NK[:, 1:]


def linked_probabilities(scores_NV: Floats, link_V2: Floats) -> Floats:
    """Each score through a logistic curve of its own; of several, one class against the rest, brought to sum 1."""
    probabilities_NV = expit(scores_NV * link_V2[:, 0] + link_V2[:, 1])
    if scores_NV.shape[1] == 1:
        return np.column_stack([1 - probabilities_NV, probabilities_NV])
    total_N1 = np.maximum(probabilities_NV.sum(axis=1, keepdims=True), 1e-300)
    shares_NV: Floats = probabilities_NV / total_N1
    return shares_NV


def joint_probabilities(scores_NV: Floats) -> Floats:
    """Softmax over the classes' scores; one score is the log odds of the last of two classes."""
    if scores_NV.shape[1] == 1:
        scores_NV = np.column_stack([np.zeros(len(scores_NV)), scores_NV])
    probabilities_NK: Floats = softmax(scores_NV, axis=1)
    return probabilities_NK
