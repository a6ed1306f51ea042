"""A random forest of regression trees: the mean of standardised numbers in each leaf."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from msfl_common.errors import UpdateError
from msfl_common.feature_models.random_forest import Forest
from msfl_common.feature_models.regression import FIRST_OUTCOME, FURTHEST, StandardisedRegression
from msfl_common.feature_models.settings import Settings
from msfl_common.feature_models.state import Floats, State
from msfl_common.feature_models.trees import to_grid, tree_scores


class ForestRegression(StandardisedRegression, Forest):
    """A random forest: each site grows its share of the trees, in one round."""

    kind: Literal["random-forest"] = Field(description="which model")

    def first_arrays(self, settings: Settings, num_prepared: int, seed: int) -> State:
        """See `FeatureModel`."""
        return Forest.first_arrays(self, settings, num_prepared, seed) | {"outcome": np.array(FIRST_OUTCOME)}

    def check_leaves(self, leaves_RV: Floats, num_cases: int) -> None:
        """See `TreeModel`: means of standardised numbers."""
        del num_cases
        if np.abs(leaves_RV).max() > FURTHEST:
            raise UpdateError(f"trees: expected means of numbers in leaves, {FURTHEST:g} standard deviations at most")

    def standard_values(self, state: State, prepared_NQ: Floats) -> Floats:
        """See `StandardisedRegression`; the mean where no tree was grown."""
        return tree_scores(state["trees"], to_grid(prepared_NQ, state["spread"]), self.max_depth)[:, 0]
