"""Gradient-boosted regression trees, of squared errors of the standardised number."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from msfl_common.errors import UpdateError
from msfl_common.feature_models.gradient_boosting import BoostedTrees
from msfl_common.feature_models.regression import FIRST_OUTCOME, FURTHEST, StandardisedRegression
from msfl_common.feature_models.settings import Settings
from msfl_common.feature_models.state import Floats, State
from msfl_common.feature_models.trees import to_grid, tree_scores


class BoostedRegression(StandardisedRegression, BoostedTrees):
    """Gradient-boosted trees: in each round every site adds trees to the shared ones (XGBoost bagging)."""

    kind: Literal["gradient-boosting"] = Field(description="which model")

    def first_arrays(self, settings: Settings, num_prepared: int, seed: int) -> State:
        """See `FeatureModel`."""
        return BoostedTrees.first_arrays(self, settings, num_prepared, seed) | {"outcome": np.array(FIRST_OUTCOME)}

    def check_leaves(self, leaves_RV: Floats, num_cases: int) -> None:
        """See `TreeModel`: a leaf's mean error, times the shrinkage."""
        del num_cases
        if np.abs(leaves_RV).max() > self.learning_rate * FURTHEST:
            raise UpdateError(
                f"trees: expected {FURTHEST:g} standard deviations in a leaf at most, times the shrinkage"
            )

    def scores(self, state: State, prepared_NQ: Floats) -> Floats:
        """What the trees add, N x 1."""
        return tree_scores(state["trees"], to_grid(prepared_NQ, state["spread"]), self.max_depth)

    def standard_values(self, state: State, prepared_NQ: Floats) -> Floats:
        """See `StandardisedRegression`."""
        return self.scores(state, prepared_NQ)[:, 0]
