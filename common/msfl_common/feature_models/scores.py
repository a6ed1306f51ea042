"""From scores of classes to their probabilities.

scipy is loaded by who computes: the configuration reads this package, too.

Legend: see the package.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from msfl_common.feature_models.state import Floats


def targets(labels_N: NDArray[np.int64], num_classes: int, num_scores: int) -> Floats:
    """1 where a case is of the score's class, else 0, N x V; one score is of the last of two classes."""
    one_hot_NK = np.eye(num_classes)[labels_N]
    return one_hot_NK if num_scores == num_classes else one_hot_NK[:, 1:]


def linked_probabilities(scores_NV: Floats, link_V2: Floats) -> Floats:
    """Each score through a logistic curve of its own; of several, one class against the rest, brought to sum 1."""
    from scipy.special import expit

    probabilities_NV: Floats = expit(scores_NV * link_V2[:, 0] + link_V2[:, 1])
    if scores_NV.shape[1] == 1:
        return np.column_stack([1 - probabilities_NV, probabilities_NV])
    total_N1 = np.maximum(probabilities_NV.sum(axis=1, keepdims=True), 1e-300)
    shares_NV: Floats = probabilities_NV / total_N1
    return shares_NV


def joint_probabilities(scores_NV: Floats) -> Floats:
    """Softmax over the classes' scores; one score is the log odds of the last of two classes."""
    from scipy.special import softmax

    if scores_NV.shape[1] == 1:
        scores_NV = np.column_stack([np.zeros(len(scores_NV)), scores_NV])
    probabilities_NK: Floats = softmax(scores_NV, axis=1)
    return probabilities_NK
