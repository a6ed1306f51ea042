"""Linear models: scores from coefficients, and what each input adds to them.

Legend: see the package.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from msfl_common.feature_models.model import FeatureModel
from msfl_common.feature_models.scores import joint_probabilities, linked_probabilities
from msfl_common.feature_models.state import Floats, State


class LinearScores(FeatureModel):
    """A model whose scores are `coefficients` times inputs, joined by softmax, or each through its own `link`."""

    is_linear_in_inputs: ClassVar[bool] = True  # `design` is the prepared inputs themselves

    def design(self, state: State, prepared_NQ: Floats) -> Floats:
        """What coefficients are multiplied with: prepared inputs, and a 1; N x M."""
        del state
        return np.column_stack([prepared_NQ, np.ones(len(prepared_NQ))])

    def probabilities(self, state: State, prepared_NQ: Floats) -> Floats:
        """See `FeatureModel`."""
        scores_NV = self.design(state, prepared_NQ) @ state["coefficients"].T
        return linked_probabilities(scores_NV, state["link"]) if "link" in state else joint_probabilities(scores_NV)

    def parts(self, state: State, scaled_P: Floats, number: int) -> Floats:
        """See `FeatureModel`; exact, and they sum to the log odds less those at the mean."""
        parts_P: Floats = (scaled_P - state["mean"]) * self.slopes(state, number)
        return parts_P

    def slopes(self, state: State, number: int) -> Floats:
        """What one unit of each input adds to the log odds of a class, P; see `explain` for three classes or more."""
        slopes_VQ = state["coefficients"][:, :-1]
        if "link" in state:
            slopes_VQ = slopes_VQ * state["link"][:, :1]
        if len(slopes_VQ) == 1:
            slopes_Q = slopes_VQ[0] * (1 if number == 1 else -1)
        elif "link" in state:
            slopes_Q = slopes_VQ[number]
        else:
            slopes_Q = slopes_VQ[number] - np.delete(slopes_VQ, number, axis=0).mean(axis=0)
        slopes_P: Floats = state["projection"] @ slopes_Q
        return slopes_P
