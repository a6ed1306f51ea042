"""Gradient-boosted trees: in each round every site adds trees to the shared ones (XGBoost bagging)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from msfl_common.errors import UpdateError
from msfl_common.feature_models.model import Answer
from msfl_common.feature_models.scores import joint_probabilities
from msfl_common.feature_models.state import Floats, Phase, State, scalar
from msfl_common.feature_models.trees import TreeModel, to_grid, tree_scores


class BoostedTrees(TreeModel):
    """Gradient-boosted trees: in each round every site adds trees to the shared ones (XGBoost bagging)."""

    kind: Literal["gradient-boosting"] = Field(description="which model")
    trees_per_round: int = Field(1, ge=1, le=100, description="trees that a site adds in a round, for each class")
    max_depth: int = Field(3, ge=1, le=8, description="levels of a tree")
    learning_rate: float = Field(0.3, gt=0, le=1, description="shrinkage of each tree")
    min_leaf_cases: int = Field(5, ge=1, description="fewest training cases in a leaf")
    subsample: float = Field(1.0, gt=0, le=1, description="share of a site's cases that a tree's splits are found on")
    colsample_bytree: float = Field(1.0, gt=0, le=1, description="share of the inputs that a tree may ask for")

    most_fits: ClassVar[int | None] = 200

    @property
    def usual_figure(self) -> float | None:
        """See `FeatureModel`: a leaf of the shrinkage is nobody's."""
        return self.learning_rate

    def num_trees_of(self, state: State) -> int:
        """See `TreeModel`."""
        num_classes = len(state["counts"])
        return self.trees_per_round * (1 if num_classes == 2 else num_classes)

    def check_leaves(self, leaves_RV: Floats, num_cases: int) -> None:
        """See `TreeModel`: a leaf adds to one score."""
        if (np.count_nonzero(leaves_RV, axis=1) > 1).any() or np.abs(leaves_RV).max() > self.learning_rate * num_cases:
            raise UpdateError(
                f"trees: expected one of {leaves_RV.shape[1]} figures in a leaf, at most its cases times the shrinkage"
            )

    def next_state(self, state: State, answers: Sequence[Answer]) -> State:
        """See `FeatureModel`."""
        return state | {"trees": self.joined(state, answers), "phase": scalar(Phase.FIT)}

    def probabilities(self, state: State, prepared_NQ: Floats) -> Floats:
        """See `FeatureModel`."""
        return joint_probabilities(self.scores(state, prepared_NQ))

    def scores(self, state: State, prepared_NQ: Floats) -> Floats:
        """Log odds of the classes' shares in training, plus what the trees add, N x V."""
        log_K = np.log(np.maximum(state["counts"], 1e-12))
        num_scores = 1 if len(log_K) == 2 else len(log_K)
        start_V = log_K[1:] - log_K[:1] if num_scores == 1 else log_K - log_K.mean()
        grid_NQ = to_grid(prepared_NQ, state["spread"])
        scores_NV: Floats = start_V + tree_scores(state["trees"], grid_NQ, self.max_depth)
        return scores_NV
