"""A multi-layer perceptron with one score, the standardised number."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from msfl_common.feature_models.mlp import MlpModel
from msfl_common.feature_models.regression import FIRST_OUTCOME, StandardisedRegression
from msfl_common.feature_models.settings import Settings
from msfl_common.feature_models.state import Floats, State


class MlpRegression(StandardisedRegression, MlpModel):
    """A multi-layer perceptron, by federated averaging."""

    kind: Literal["mlp"] = Field(description="which model")

    def first_arrays(self, settings: Settings, num_prepared: int, seed: int) -> State:
        """See `FeatureModel`."""
        return MlpModel.first_arrays(self, settings, num_prepared, seed) | {"outcome": np.array(FIRST_OUTCOME)}

    def standard_values(self, state: State, prepared_NQ: Floats) -> Floats:
        """See `StandardisedRegression`."""
        return self.scores(state, prepared_NQ)[:, 0]
