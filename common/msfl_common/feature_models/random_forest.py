"""A random forest: each site grows its share of the trees, in one round."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from msfl_common.errors import UpdateError
from msfl_common.feature_models.model import Answer
from msfl_common.feature_models.settings import Settings
from msfl_common.feature_models.state import Floats, Phase, State, scalar
from msfl_common.feature_models.trees import TreeModel, to_grid, tree_scores

_ROUNDING = 1e-9


class Forest(TreeModel):
    """A random forest: each site grows its share of the trees, in one round."""

    kind: Literal["random-forest"] = Field(description="which model")
    num_trees: int = Field(100, ge=1, le=5000, description="trees of each site")
    max_depth: int = Field(6, ge=1, le=12, description="levels of a tree")
    min_leaf_cases: int = Field(5, ge=1, description="fewest training cases in a leaf")

    most_fits: ClassVar[int | None] = None
    num_rounds_needed: ClassVar[int | None] = 2

    def num_scores(self, settings: Settings) -> int:
        """See `FeatureModel`: the probability of each class, in a leaf."""
        return len(settings.outcome.classes)

    def num_trees_of(self, state: State) -> int:
        """See `TreeModel`."""
        del state
        return self.num_trees

    def check_leaves(self, leaves_RV: Floats, num_cases: int) -> None:
        """See `TreeModel`: shares of classes."""
        del num_cases
        if (leaves_RV < 0).any() or (np.abs(leaves_RV.sum(axis=1) - 1) > _ROUNDING).any():
            raise UpdateError("trees: expected the shares of classes in a leaf, which add up to 1")

    def next_state(self, state: State, answers: Sequence[Answer]) -> State:
        """See `FeatureModel`: the sites' forests in one."""
        return state | {"trees": self.joined(state, answers), "phase": scalar(Phase.DONE)}

    def probabilities(self, state: State, prepared_NQ: Floats) -> Floats:
        """See `FeatureModel`."""
        if not len(state["trees"]):
            return np.tile(state["counts"] / state["counts"].sum(), (len(prepared_NQ), 1))
        return tree_scores(state["trees"], to_grid(prepared_NQ, state["spread"]), self.max_depth)

    def weight_of(self, share: float) -> float:
        """See `TreeModel`: a site's share, over its trees."""
        return share / self.num_trees
