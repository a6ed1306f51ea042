"""Probabilities of the classes, from a state and inputs.

Legend: see the package.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from msfl_common.config.classification import (
    BoostedTrees,
    Classification,
    ClosedFormModel,
    Forest,
    MlpModel,
)
from msfl_common.feature_models.linear import design, joint_probabilities, linked_probabilities
from msfl_common.feature_models.mlp import scores_of
from msfl_common.feature_models.preparation import prepare
from msfl_common.feature_models.state import Phase, State, phase_of
from msfl_common.feature_models.trees import to_grid, tree_scores

Floats = NDArray[np.float64]


def predict_proba(settings: Classification, state: State, features_NP: Floats) -> Floats:
    """The probability of each class, N x K; the same for all before the first sums are known.

    Raises:
        InputError: another number of inputs than the study's, or a value that is not finite.
    """
    model = settings.model
    prepared_NQ = prepare(settings, state, features_NP)
    if phase_of(state) is Phase.PREPARE:
        num_classes = len(settings.outcome.classes)
        return np.full((len(prepared_NQ), num_classes), 1 / num_classes)
    match model:
        case BoostedTrees():
            return joint_probabilities(boosted_scores(model, state, prepared_NQ))
        case Forest():
            return _forest_probabilities(model, state, prepared_NQ)
        case MlpModel():
            return joint_probabilities(scores_of(model, state, prepared_NQ))
        case ClosedFormModel(kind="naive-bayes"):
            return joint_probabilities(_gaussian_scores(state, prepared_NQ))
    scores_NV = design(settings, state, features_NP) @ state["coefficients"].T
    return linked_probabilities(scores_NV, state["link"]) if "link" in state else joint_probabilities(scores_NV)


def boosted_scores(model: BoostedTrees, state: State, prepared_NQ: Floats) -> Floats:
    """Log odds of the classes' shares in training, plus what the trees add, N x V."""
    log_K = np.log(np.maximum(state["counts"], 1e-12))
    num_scores = 1 if len(log_K) == 2 else len(log_K)
    start_V = log_K[1:] - log_K[:1] if num_scores == 1 else log_K - log_K.mean()
    scores_NV: Floats = start_V + tree_scores(state["trees"], to_grid(prepared_NQ, state["spread"]), model.max_depth)
    return scores_NV


def _forest_probabilities(model: Forest, state: State, prepared_NQ: Floats) -> Floats:
    if not len(state["trees"]):
        return np.tile(state["counts"] / state["counts"].sum(), (len(prepared_NQ), 1))
    return tree_scores(state["trees"], to_grid(prepared_NQ, state["spread"]), model.max_depth)


def _gaussian_scores(state: State, prepared_NQ: Floats) -> Floats:
    """Log of each class's share and normal density, N x K."""
    means_K1Q, variances_K1Q = state["class_means"][:, None], state["class_variances"][:, None]
    exponents_KN = -0.5 * ((prepared_NQ - means_K1Q) ** 2 / variances_K1Q + np.log(variances_K1Q)).sum(axis=2)
    scores_NK: Floats = exponents_KN.T + np.log(state["counts"] / state["counts"].sum())
    return scores_NK
