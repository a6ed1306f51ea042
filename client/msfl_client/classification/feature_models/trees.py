"""Trees that a site grows on its cases: laid out as they travel, without leaves of too few patients.

Legend: see `msfl_common.feature_models.trees`; B nodes of one tree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msfl_common.feature_models.trees import RIGHT, ROOT

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
Figure = Callable[[NDArray[np.intp]], Floats]  # what a leaf of the cases of these rows adds to each score


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
