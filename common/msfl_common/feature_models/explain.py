"""Why a model says what it says of one case: what each input adds to the log odds of a class, or to a number.

Legend: see the package.
"""

from __future__ import annotations

from msfl_common.feature_models.predict import predict_proba
from msfl_common.feature_models.preparation import scale_subjects
from msfl_common.feature_models.registry import model_of
from msfl_common.feature_models.settings import Settings, is_numeric
from msfl_common.feature_models.state import Floats, State


def explain(settings: Settings, state: State, features_P: Floats, number: int | None = None) -> dict[str, float]:
    """What each input of a case adds to the log odds of a class, or to a number, against the mean of training cases.

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
        number: which class; None for the most probable, and of a number.

    Raises:
        UnknownModelError: the study has no model of features.
        InputError: see `predict_proba`.
    """
    explained = 0 if number is None else number
    if number is None and not is_numeric(settings):
        explained = int(predict_proba(settings, state, features_P[None])[0].argmax())
    values_P = model_of(settings).parts(state, scale_subjects(settings, features_P[None])[0], explained)
    return dict(zip(settings.inputs, map(float, values_P), strict=True))
