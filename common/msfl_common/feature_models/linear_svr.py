"""Linear support vector regression with the squared epsilon-insensitive loss, by Newton steps from sums.

The number is learned in standard deviations, and so is epsilon. The intercept is not penalised; scikit-learn's
LinearSVR penalises it as one more coefficient, and agrees with a large `intercept_scaling`.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from msfl_common.feature_models.regression import FIRST_OUTCOME, StandardisedRegression
from msfl_common.feature_models.searched import SearchedOnInputs, first_search
from msfl_common.feature_models.settings import Settings
from msfl_common.feature_models.state import MAX_STEPS, Floats, State


class LinearSvr(StandardisedRegression, SearchedOnInputs):
    """Fitted by Newton steps from gradients and curvatures summed over sites: as if all cases were in one place."""

    kind: Literal["linear-svr"] = Field(description="which model")
    epsilon: float = Field(0.1, ge=0, le=10, description="errors of so many standard deviations cost nothing")

    is_hinge: ClassVar[bool] = True
    most_wanted: ClassVar[float] = 100.0  # a site's patients may be further from the mean than others'
    num_rounds_needed: ClassVar[int | None] = 1 + MAX_STEPS

    def first_arrays(self, settings: Settings, num_prepared: int, seed: int) -> State:
        """See `FeatureModel`; a number needs no step to probabilities."""
        del settings, seed
        return first_search(1, num_prepared + 1, with_link=False) | {"outcome": np.array(FIRST_OUTCOME)}

    def standard_values(self, state: State, prepared_NQ: Floats) -> Floats:
        """See `StandardisedRegression`."""
        values_N: Floats = self.design(state, prepared_NQ) @ state["coefficients"][0]
        return values_N

    def per_unit(self, state: State) -> Floats | None:
        """See `RegressionModel`."""
        slopes_P: Floats = state["outcome"][1] * state["projection"] @ state["coefficients"][0, :-1]
        return slopes_P
