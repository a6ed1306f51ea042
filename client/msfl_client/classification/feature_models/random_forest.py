"""A site's half of a random forest, grown by scikit-learn.

Trees show thresholds on a public grid, and in each leaf shares over patients of the floor or more.

Legend: see `msfl_common.feature_models.trees`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from msfl_client.classification.feature_models.site_half import Asked, SiteHalf
from msfl_client.classification.feature_models.trees import Floor, Tree, lay_out
from msfl_common.feature_models import State
from msfl_common.feature_models.random_forest import Forest
from msfl_common.feature_models.scores import targets
from msfl_common.feature_models.trees import to_grid
from msfl_common.system.seeds import derive_seed

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


class ForestSite(SiteHalf[Forest]):
    """See `SiteHalf`."""

    def answer(self, asked: Asked) -> State:
        """See `SiteHalf`."""
        floor = Floor(self.model.min_leaf_cases, asked.floor, asked.patients_N)
        return {
            "trees": grow_forest(self.model, asked.state, asked.prepared_NQ, asked.cases.labels_N, floor, asked.seed)
        }


def grow_forest(model: Forest, state: State, prepared_NQ: Floats, labels_N: Labels, floor: Floor, seed: int) -> Floats:
    """A forest of scikit-learn's, each leaf with the classes' shares among the site's cases in it.

    The samples that trees are grown on are drawn with replacement; the shares are of all cases, once each, so that a
    leaf below the floor can be taken back into its parent.
    """
    from sklearn.ensemble import RandomForestClassifier

    grid_NQ, num_classes = to_grid(prepared_NQ, state["spread"]), len(state["counts"])
    one_hot_NK = targets(labels_N, num_classes, num_classes)
    forest = RandomForestClassifier(**forest_settings(model, floor, seed)).fit(grid_NQ, labels_N)
    return laid_out(forest, grid_NQ, floor, one_hot_NK)


def forest_settings(model: Forest, floor: Floor, seed: int) -> dict[str, Any]:
    """Those of scikit-learn's forests."""
    return {
        "n_estimators": model.num_trees,
        "max_depth": model.max_depth,
        "min_samples_leaf": max(floor.cases, floor.patients),
        "random_state": derive_seed(seed, "forest"),
        "n_jobs": 1,
    }


def laid_out(forest: Any, grid_NQ: Floats, floor: Floor, wanted_NV: Floats) -> Floats:
    """The trees of a fitted forest, each leaf with the mean of what is wanted over the site's cases in it."""
    grown = [
        Tree(
            found.tree_.children_left.astype(np.intp),
            found.tree_.children_right.astype(np.intp),
            found.tree_.feature.astype(np.intp),
            np.floor(found.tree_.threshold) + 1,  # inputs are whole: at most 2.5 is below 3
        )
        for found in forest.estimators_
    ]
    return np.concatenate(
        [lay_out(tree, grid_NQ, floor, lambda cases: wanted_NV[cases].mean(axis=0)) for tree in grown]
    )
