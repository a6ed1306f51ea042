"""Trees that a site grows on its cases: one more step of boosting, or a forest.

Legend: see `msfl_common.feature_models.trees`; B nodes of one tree.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msfl_common.config.classification import BoostedTrees, Forest
from msfl_common.feature_models import State
from msfl_common.feature_models.linear import joint_probabilities, targets
from msfl_common.feature_models.predict import boosted_scores
from msfl_common.feature_models.trees import RIGHT, ROOT, to_grid, tree_scores
from msfl_common.system.seeds import derive_seed

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
Figure = Callable[[NDArray[np.intp]], Floats]  # what a leaf of the cases of these rows adds to each score
LAMBDA = 1.0  # XGBoost's own: added to the curvature in each leaf


@dataclass(frozen=True)
class Floor:
    """What a leaf must hold at least.

    Attributes:
        cases: the model's fewest cases.
        patients: the site's fewest patients.
        patients_N: the patient of each case.
    """

    cases: int
    patients: int
    patients_N: NDArray[np.str_]

    def allows(self, cases: NDArray[np.intp]) -> bool:
        """Whether the cases of these rows may make a leaf."""
        return len(cases) >= self.cases and len(np.unique(self.patients_N[cases])) >= self.patients


@dataclass(frozen=True)
class Tree:
    """A tree as XGBoost and scikit-learn keep it.

    Attributes:
        left: number of a node's left child; -1 at a leaf; B each.
        right: likewise.
        feature: the input that is asked for.
        below: whole step of the grid; a case goes left if its input is below it.
    """

    left: NDArray[np.intp]
    right: NDArray[np.intp]
    feature: NDArray[np.intp]
    below: Floats


def boost(model: BoostedTrees, state: State, prepared_NQ: Floats, labels_N: Labels, floor: Floor, seed: int) -> Floats:
    """Go on from the shared trees by `trees_per_round` trees for each score.

    XGBoost finds the splits, given the margins so far, on a share of the cases and inputs if the study says so
    (Friedman, Stochastic gradient boosting, 2002), drawn anew from `seed` for each tree. Leaves below the floor are
    then taken back into their parent, and each leaf's figure is XGBoost's own, -rate G / (H + lambda), of all the
    site's cases in it.
    """
    grid_NQ = to_grid(prepared_NQ, state["spread"])
    margins_NV = boosted_scores(model, state, prepared_NQ)
    parts = []
    for number in range(model.trees_per_round):
        gradients_NV, curvatures_NV = derivatives(margins_NV, labels_N, len(state["counts"]))
        lightest = max(floor.cases, floor.patients) * model.subsample * float(curvatures_NV.mean())
        found = find_splits(model, grid_NQ, labels_N, margins_NV, lightest, derive_seed(seed, number))
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


def derivatives(margins_NV: Floats, labels_N: Labels, num_classes: int) -> tuple[Floats, Floats]:
    """First and second derivative of the log loss by each margin; of several classes XGBoost doubles the second."""
    probabilities_NK = joint_probabilities(margins_NV)
    of_score_NV = probabilities_NK if margins_NV.shape[1] > 1 else probabilities_NK[:, 1:]
    factor = 2 if margins_NV.shape[1] > 1 else 1
    gradients_NV = of_score_NV - targets(labels_N, num_classes, margins_NV.shape[1])
    return gradients_NV, np.maximum(factor * of_score_NV * (1 - of_score_NV), 1e-16)


def find_splits(
    model: BoostedTrees, grid_NQ: Floats, labels_N: Labels, margins_NV: Floats, lightest: float, seed: int
) -> list[Tree]:
    """One tree for each score, by XGBoost on one thread.

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
        **({"objective": "binary:logistic"} if num_scores == 1 else {}),
    }
    start = margins_NV if num_scores > 1 else margins_NV[:, 0]
    data = xgboost.DMatrix(grid_NQ, label=labels_N, base_margin=start)
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


def grow_forest(model: Forest, state: State, prepared_NQ: Floats, labels_N: Labels, floor: Floor, seed: int) -> Floats:
    """A forest of scikit-learn's, each leaf with the classes' shares among the site's cases in it.

    The samples that trees are grown on are drawn with replacement; the shares are of all cases, once each, so that a
    leaf below the floor can be taken back into its parent.
    """
    from sklearn.ensemble import RandomForestClassifier

    grid_NQ, num_classes = to_grid(prepared_NQ, state["spread"]), len(state["counts"])
    one_hot_NK = targets(labels_N, num_classes, num_classes)
    forest = RandomForestClassifier(
        n_estimators=model.num_trees,
        max_depth=model.max_depth,
        min_samples_leaf=max(floor.cases, floor.patients),
        random_state=derive_seed(seed, "forest"),
        n_jobs=1,
    ).fit(grid_NQ, labels_N)
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
        [lay_out(tree, grid_NQ, floor, lambda cases: one_hot_NK[cases].mean(axis=0)) for tree in grown]
    )


def lay_out(tree: Tree, grid_NQ: Floats, floor: Floor, figure: Figure) -> Floats:
    """A tree as rows of nodes; a node with a leaf below the floor under it becomes a leaf itself.

    Args:
        tree: the splits.
        grid_NQ: the site's cases.
        floor: what a leaf must hold.
        figure: what a leaf holds.
    """
    rows: list[Floats] = []

    def visit(node: int, cases: NDArray[np.intp]) -> bool:
        """Append the subtree; False, and nothing appended, if it may not make a leaf."""
        if rows and not floor.allows(cases):
            return False
        start = len(rows)
        if tree.left[node] >= 0:
            goes_left = grid_NQ[cases, tree.feature[node]] < tree.below[node]
            rows.append(np.concatenate([[0.0, tree.feature[node], tree.below[node], 0.0], 0 * figure(cases)]))
            if visit(int(tree.left[node]), cases[goes_left]):
                offset = len(rows) - start
                if visit(int(tree.right[node]), cases[~goes_left]):
                    rows[start][RIGHT] = offset
                    return True
            del rows[start:]
        rows.append(np.concatenate([[0.0, -1.0, 0.0, 0.0], figure(cases)]))
        return True

    visit(0, np.arange(len(grid_NQ)))
    rows[0][ROOT] = 1
    return np.stack(rows)
