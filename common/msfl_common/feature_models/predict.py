"""Probabilities of the classes, or the number that is predicted, from a state and inputs.

Legend: see the package.
"""

from __future__ import annotations

import numpy as np

from msfl_common.feature_models.preparation import prepare
from msfl_common.feature_models.registry import model_of
from msfl_common.feature_models.regression import RegressionModel
from msfl_common.feature_models.settings import Settings
from msfl_common.feature_models.state import Floats, Phase, State, phase_of


def predict_proba(settings: Settings, state: State, features_NP: Floats) -> Floats:
    """The probability of each class, N x K; the same for all before the first sums are known.

    Raises:
        UnknownModelError: the study has no model of features.
        InputError: another number of inputs than the study's, or a value that is not finite.
    """
    model, prepared_NQ = model_of(settings), prepare(settings, state, features_NP)
    if phase_of(state) is Phase.PREPARE:
        num_classes = len(settings.outcome.classes)
        return np.full((len(prepared_NQ), num_classes), 1 / num_classes)
    return model.probabilities(state, prepared_NQ)


def predict_values(settings: Settings, state: State, features_NP: Floats) -> Floats:
    """The number of each case, N, in the outcome's unit; 0 for all before the first sums are known.

    Raises:
        UnknownModelError: the study has no model of features.
        InputError: another number of inputs than the study's, or a value that is not finite.
    """
    model, prepared_NQ = model_of(settings), prepare(settings, state, features_NP)
    assert isinstance(model, RegressionModel)
    return np.zeros(len(prepared_NQ)) if phase_of(state) is Phase.PREPARE else model.values(state, prepared_NQ)
