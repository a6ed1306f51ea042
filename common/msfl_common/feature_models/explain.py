"""Why a model says what it says of one case: what each input adds to the log odds of a class.

Legend: see the package.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from msfl_common.config.classification import Classification, ClosedFormModel, LinearModel
from msfl_common.feature_models.predict import predict_proba
from msfl_common.feature_models.preparation import scale_subjects
from msfl_common.feature_models.state import State

Floats = NDArray[np.float64]
_LEAST = 1e-9  # probabilities are told apart down to this


def explain(settings: Classification, state: State, features_P: Floats, number: int | None = None) -> dict[str, float]:
    """What each input of a case adds to the log odds of a class, against the mean of the training cases.

    - logistic, linear-svm, LDA and least squares are linear: exact, back through components, selection and scaling.
      The contributions sum to the case's log odds less those at the mean. Of three classes or more, the log odds of
      logistic and LDA are those against the geometric mean of the others; the others' are those of the class against
      the rest, before probabilities are brought to sum 1.
    - The others: one input at a time is put at its mean, the rest stay, and the log odds are compared. What inputs
      do only together is counted with each of them, so the contributions need not sum to the whole.

    An input counts as scaled within its case where the study does so.

    Args:
        settings: inputs and model.
        state: the trained model.
        features_P: the case's inputs.
        number: which class; None for the most probable.

    Raises:
        InputError: see `predict_proba`.
    """
    probabilities_K = predict_proba(settings, state, features_P[None])[0]
    explained = int(probabilities_K.argmax()) if number is None else number
    match settings.model:
        case LinearModel() | ClosedFormModel(kind="lda" | "least-squares"):
            values_P = _linear_parts(settings, state, features_P, explained)
        case _:
            values_P = _replaced_parts(settings, state, features_P, explained)
    return dict(zip(settings.inputs, map(float, values_P), strict=True))


def _linear_parts(settings: Classification, state: State, features_P: Floats, number: int) -> Floats:
    slopes_VQ = state["coefficients"][:, :-1]
    if "link" in state:
        slopes_VQ = slopes_VQ * state["link"][:, :1]
    if len(slopes_VQ) == 1:
        slopes_Q = slopes_VQ[0] * (1 if number == 1 else -1)
    elif "link" in state:
        slopes_Q = slopes_VQ[number]
    else:
        slopes_Q = slopes_VQ[number] - np.delete(slopes_VQ, number, axis=0).mean(axis=0)
    from_mean_P = scale_subjects(settings, features_P[None])[0] - state["mean"]
    parts_P: Floats = from_mean_P * (state["projection"] @ slopes_Q)
    return parts_P


def _replaced_parts(settings: Classification, state: State, features_P: Floats, number: int) -> Floats:
    scaled_P = scale_subjects(settings, features_P[None])[0]
    unscaled = settings.model_copy(
        update={"preparation": settings.preparation.model_copy(update={"subject_scaling": "none"})}
    )
    replaced_PP = np.where(np.eye(len(scaled_P), dtype=bool), state["mean"], scaled_P)
    probabilities = predict_proba(unscaled, state, np.vstack([scaled_P, replaced_PP]))[:, number]
    odds = logit(np.clip(probabilities, _LEAST, 1 - _LEAST))
    parts_P: Floats = odds[0] - odds[1:]
    return parts_P
