"""A site's half of boosted trees: one more step from the shared ones, by XGBoost.

Trees show thresholds on a public grid, and in each leaf a figure over patients of the floor or more.

Legend: see `msfl_common.feature_models.trees`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msfl_client.classification.feature_models.site_half import Asked, SiteHalf
from msfl_client.classification.feature_models.trees import Figure, Floor, Tree, lay_out
from msfl_client.disclosure.state_bounds import expect, expect_spread
from msfl_common.feature_models import Phase, State, phase_of
from msfl_common.feature_models.gradient_boosting import BoostedTrees
from msfl_common.feature_models.scores import joint_probabilities, targets
from msfl_common.feature_models.trees import to_grid, tree_scores
from msfl_common.system.seeds import derive_seed

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
Derivatives = Callable[[Floats, Any, int], tuple[Floats, Floats]]
LAMBDA = 1.0  # XGBoost's own: added to the curvature in each leaf


class BoostedTreesSite(SiteHalf[BoostedTrees]):
    """See `SiteHalf`."""

    def answer(self, asked: Asked) -> State:
        """See `SiteHalf`."""
        floor = Floor(self.model.min_leaf_cases, asked.floor, asked.patients_N)
        drawn = derive_seed(asked.seed, "boost", asked.round_number)
        return {"trees": boost(self.model, asked.state, asked.prepared_NQ, asked.cases.labels_N, floor, drawn)}

    def check_next(self, state: State, first: State, last: State | None) -> None:
        """See `SiteHalf`: trees are added to those that were there."""
        del first
        if last is not None and phase_of(last) is Phase.FIT:
            before = len(last["trees"])
            same = np.array_equal(state["trees"][:before], last["trees"])
            expect(same, "trees: those asked last are not the first")

    def check_reach(self, state: State, prepared_NQ: Floats) -> None:
        """See `SiteHalf`."""
        expect_spread("scores", self.model.scores(state, prepared_NQ))


def derivatives(margins_NV: Floats, labels_N: Labels, num_classes: int) -> tuple[Floats, Floats]:
    """First and second derivative of the log loss by each margin; of several classes XGBoost doubles the second."""
    probabilities_NK = joint_probabilities(margins_NV)
    of_score_NV = probabilities_NK if margins_NV.shape[1] > 1 else probabilities_NK[:, 1:]
    factor = 2 if margins_NV.shape[1] > 1 else 1
    gradients_NV = of_score_NV - targets(labels_N, num_classes, margins_NV.shape[1])
    return gradients_NV, np.maximum(factor * of_score_NV * (1 - of_score_NV), 1e-16)


def boost(
    model: BoostedTrees,
    state: State,
    prepared_NQ: Floats,
    wanted_N: Labels | Floats,
    floor: Floor,
    seed: int,
    derive: Derivatives = derivatives,
    objective: str | None = None,
) -> Floats:
    """Go on from the shared trees by `trees_per_round` trees for each score.

    XGBoost finds the splits, given the margins so far, on a share of the cases and inputs if the study says so
    (Friedman, Stochastic gradient boosting, 2002), drawn anew from `seed` for each tree. Leaves below the floor are
    then taken back into their parent, and each leaf's figure is XGBoost's own, -rate G / (H + lambda), of all the
    site's cases in it.
    """
    grid_NQ = to_grid(prepared_NQ, state["spread"])
    margins_NV = model.scores(state, prepared_NQ)
    parts = []
    for number in range(model.trees_per_round):
        gradients_NV, curvatures_NV = derive(margins_NV, wanted_N, len(state["counts"]))
        lightest = max(floor.cases, floor.patients) * model.subsample * float(curvatures_NV.mean())
        found = find_splits(model, grid_NQ, wanted_N, margins_NV, lightest, derive_seed(seed, number), objective)
        trees = [
            lay_out(tree, grid_NQ, floor, _leaf(model, gradients_NV, curvatures_NV, score))
            for score, tree in enumerate(found)
        ]
        parts += trees
        margins_NV = margins_NV + tree_scores(np.concatenate(trees), grid_NQ, model.max_depth)
    return np.concatenate(parts)


def _leaf(model: BoostedTrees, gradients_NV: Floats, curvatures_NV: Floats, score: int) -> Figure:
    def figure(cases: NDArray[np.intp]) -> Floats:
        value_V = np.zeros(gradients_NV.shape[1])
        total = curvatures_NV[cases, score].sum() + LAMBDA
        value_V[score] = -model.learning_rate * gradients_NV[cases, score].sum() / total
        return value_V

    return figure


def find_splits(
    model: BoostedTrees,
    grid_NQ: Floats,
    wanted_N: Labels | Floats,
    margins_NV: Floats,
    lightest: float,
    seed: int,
    objective: str | None = None,
) -> list[Tree]:
    """One tree for each score, by XGBoost on one thread; of classes without an `objective`.

    XGBoost bounds a leaf by its sum of curvatures, `lightest`, not by its cases. Its own bound of 1 would be a whole
    small site where an outcome is rare.
    """
    import xgboost

    num_scores = margins_NV.shape[1]
    settings = {
        "max_depth": model.max_depth,
        "learning_rate": model.learning_rate,
        "reg_lambda": LAMBDA,
        "min_child_weight": lightest,
        "subsample": model.subsample,
        "colsample_bytree": model.colsample_bytree,
        "seed": seed % 2**31,
        "tree_method": "exact",
        "nthread": 1,
        "verbosity": 0,
        "base_score": 0.5,
        **({"objective": "multi:softprob", "num_class": num_scores} if num_scores > 1 else {}),
        **({"objective": objective or "binary:logistic"} if num_scores == 1 else {}),
    }
    start = margins_NV if num_scores > 1 else margins_NV[:, 0]
    data = xgboost.DMatrix(grid_NQ, label=wanted_N, base_margin=start)
    grown = json.loads(bytes(xgboost.train(settings, data, num_boost_round=1).save_raw("json")))
    inside = grown["learner"]["gradient_booster"]["model"]
    trees = [
        Tree(
            np.array(tree["left_children"], dtype=np.intp),
            np.array(tree["right_children"], dtype=np.intp),
            np.array(tree["split_indices"], dtype=np.intp),
            np.ceil(tree["split_conditions"]),  # inputs are whole: below 2.5 is below 3
        )
        for tree in inside["trees"]
    ]
    return [trees[number] for number in np.argsort(inside["tree_info"], kind="stable")]
