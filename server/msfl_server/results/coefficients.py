"""What a trained linear model of features says of each input: coefficients, and odds ratios where it has them.

Coefficients of prepared inputs go back through components, selection and scaling to the inputs themselves, so that one
unit is the input's own; a standard deviation is that of all sites' training cases. There is no interval: a penalty
draws coefficients towards 0 by an unknown amount, and standard errors do not tell of it (Goeman, Biom J 2010).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from msfl_common.config.classification import Classification, DeepModel
from msfl_common.feature_models import Phase, State, phase_of
from msfl_common.feature_models.linear import LinearScores
from msfl_server.results.training_inputs import TrainingInputs, spread_of


class Coefficient(BaseModel):
    """One input and the log odds of one class."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    input: str = Field(description="name of the input")
    of_class: str = Field(
        description="the class whose log odds it is added to: against the other of two, else against the geometric "
        "mean of the others or, of models fitted class by class, the rest"
    )
    per_unit: float = Field(description="change of the log odds with one unit of the input")
    per_sd: float | None = Field(description="change with a standard deviation over all training cases; null: unknown")
    has_odds_ratio: bool = Field(
        description="whether exp(coefficient) is an odds ratio: of two classes, and a model that is fitted to log "
        "odds, unlike support vector machines and least squares, whose scores become probabilities afterwards"
    )
    is_used: bool = Field(description="false where the selection of features left the input out")


def coefficients_of(
    settings: Classification, state: State, training: Mapping[str, TrainingInputs]
) -> tuple[Coefficient, ...]:
    """Of each class that has log odds of its own (the last of two, else each) and each input; empty of other models.

    Args:
        settings: what is predicted, from what and by which model.
        state: the trained model.
        training: site to its training cases, for the standard deviations.
    """
    model = settings.model
    if isinstance(model, DeepModel) or not isinstance(model, LinearScores) or not model.is_linear_in_inputs:
        return ()
    if phase_of(state) is Phase.PREPARE:
        return ()
    spread = spread_of(training.values())
    used_P = np.abs(state["projection"]).sum(axis=1) > 0
    classes = settings.outcome.classes
    found = []
    for number in [1] if len(classes) == 2 else range(len(classes)):
        for place, (name, slope) in enumerate(zip(settings.inputs, model.slopes(state, number), strict=True)):
            per_sd = None if spread is None or np.isnan(spread.sd_P[place]) else float(slope * spread.sd_P[place])
            found.append(
                Coefficient(
                    input=name,
                    of_class=classes[number],
                    per_unit=float(slope),
                    per_sd=per_sd,
                    has_odds_ratio=len(classes) == 2 and "link" not in state,
                    is_used=bool(used_P[place]),
                )
            )
    return tuple(found)
