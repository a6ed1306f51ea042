"""Decision trees as one array, the same for boosting and forests.

Each row is a node; a tree's nodes follow each other in depth-first order, so that the left child of a node is the next
row. The columns:

    0  1 for the first node of a tree, else 0
    1  the prepared input that is asked for; -1 at a leaf
    2  the case goes left if its input, on the grid, is below this
    3  rows from the node to its right child; 0 at a leaf
    4  and on: what a leaf adds to each score; 0 at a node that asks

Inputs are rounded to a public grid of a twentieth of the standard deviation before a site grows a tree, and thresholds
are whole numbers of that grid: none is a patient's value.

Legend: N cases, Q prepared inputs, R rows of nodes, T trees, V scores.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from msfl_common.errors import UpdateError
from msfl_common.feature_models.model import Answer, FeatureModel
from msfl_common.feature_models.settings import Settings
from msfl_common.feature_models.state import Floats, State

ROOT, FEATURE, THRESHOLD, RIGHT, VALUES = range(5)

GRID = 0.05  # of an input's standard deviation
_FURTHEST = 400  # steps of the grid, 20 standard deviations: what lies beyond counts as that
_BLOCK = 2_000_000  # cases x trees that are walked at a time


class TreeModel(FeatureModel):
    """A model of trees: sites grow them, the coordinator joins them."""

    answers_sums: ClassVar[bool] = False
    draws_anew: ClassVar[bool] = True
    moving: ClassVar[tuple[str, ...]] = ("trees",)
    uses_shares: ClassVar[bool] = True
    adds_checked: ClassVar[bool] = True

    if TYPE_CHECKING:  # a setting of each kind, in an order of its own
        max_depth: int

    @abstractmethod
    def num_trees_of(self, state: State) -> int:
        """Trees of a site's answer."""

    @abstractmethod
    def check_leaves(self, leaves_RV: Floats, num_cases: int) -> None:
        """Refuse figures in leaves that no cases give.

        Raises:
            UpdateError: says which.
        """

    def first_arrays(self, settings: Settings, num_prepared: int, seed: int) -> State:
        """See `FeatureModel`."""
        del num_prepared, seed
        return {"trees": np.zeros((0, VALUES + self.num_scores(settings)))}

    def answer_like(self, state: State) -> State:
        """See `FeatureModel`."""
        return {"trees": np.zeros((0, state["trees"].shape[1]))}

    def fewest_numbers(self, first: State) -> int:
        """See `FeatureModel`: trees are no sums that a bound could be put on."""
        del first
        return 0

    def check_arrays(self, state: State) -> None:
        """See `FeatureModel`: whole trees."""
        check_trees(state["trees"], len(state["spread"]), self.max_depth)

    def figure_of(self, answer: State) -> float:
        """See `FeatureModel`: the largest figure in a leaf, without its sign."""
        return float(np.abs(answer["trees"][:, VALUES:]).max())

    def check_answer(self, state: State, answer: State, num_cases: int) -> None:
        """See `FeatureModel`: as many trees as were asked for, such as a site can have grown."""
        trees_R, expected = answer["trees"], self.num_trees_of(state)
        most_leaves = min(2**self.max_depth, max(1, num_cases))
        if len(trees_R) > expected * (2 * most_leaves - 1):
            raise UpdateError(f"trees: expected at most {2 * most_leaves - 1} nodes in each of {expected} trees")
        found = check_trees(trees_R, len(state["spread"]), self.max_depth)
        if found != expected:
            raise UpdateError(f"expected {expected} trees, found {found}")
        is_leaf_R, values_RV = trees_R[:, FEATURE] == -1, trees_R[:, VALUES:]
        if values_RV[~is_leaf_R].any():
            raise UpdateError("trees: expected figures at leaves alone")
        self.check_leaves(values_RV[is_leaf_R], num_cases)

    def weight_of(self, share: float) -> float:
        """What a site's leaves are multiplied with, given its share."""
        return share

    def joined(self, state: State, answers: Sequence[Answer]) -> Floats:
        """All trees one after the other, their leaves weighed by their site's share.

        Raises:
            UpdateError: trees that are none; the line names the site.
        """
        parts = [state["trees"]]
        for one in answers:
            try:
                self.check_answer(state, one.arrays, one.num_cases)
            except UpdateError as error:
                raise UpdateError(f"{one.site}: {error}") from None
            trees_R = one.arrays["trees"].copy()
            trees_R[:, VALUES:] *= self.weight_of(one.share)
            parts.append(trees_R)
        return np.concatenate(parts)


def to_grid(prepared_NQ: Floats, spread_Q: Floats) -> Floats:
    """Prepared inputs as whole steps of the grid."""
    steps_NQ: Floats = np.clip(np.rint(prepared_NQ / (GRID * spread_Q)), -_FURTHEST, _FURTHEST)
    return steps_NQ


def tree_scores(trees_R: Floats, grid_NQ: Floats, max_depth: int) -> Floats:
    """The sum over trees of the leaves that N cases fall into, N x V."""
    scores_NV = np.zeros((len(grid_NQ), trees_R.shape[1] - VALUES))
    roots_T = np.flatnonzero(trees_R[:, ROOT])
    if not len(roots_T):
        return scores_NV
    size = max(1, _BLOCK // len(roots_T))
    for start in range(0, len(grid_NQ), size):
        block = grid_NQ[start : start + size]
        leaves_BT = leaf_rows(trees_R, roots_T, block, max_depth)
        for score in range(scores_NV.shape[1]):
            scores_NV[start : start + size, score] = trees_R[leaves_BT, VALUES + score].sum(axis=1)
    return scores_NV


def leaf_rows(trees_R: Floats, roots_T: NDArray[np.intp], grid_NQ: Floats, max_depth: int) -> NDArray[np.intp]:
    """The row of the leaf that each case falls into in each tree, N x T."""
    features_R, offsets_R = trees_R[:, FEATURE].astype(np.intp), trees_R[:, RIGHT].astype(np.intp)
    cases_N1 = np.arange(len(grid_NQ))[:, None]
    rows_NT = np.broadcast_to(roots_T, (len(grid_NQ), len(roots_T))).copy()
    for _ in range(max_depth):
        asked_NT = features_R[rows_NT]
        goes_left_NT = grid_NQ[cases_N1, asked_NT] < trees_R[rows_NT, THRESHOLD]
        rows_NT += np.where(asked_NT < 0, 0, np.where(goes_left_NT, 1, offsets_R[rows_NT]))
    return rows_NT


def check_trees(trees_R: Floats, num_prepared: int, max_depth: int) -> int:
    """Refuse an array that is not made of whole trees; returns how many there are.

    Raises:
        UpdateError: a node outside its tree, an unknown input, or a tree deeper than the study's.
    """
    if not np.isfinite(trees_R).all():
        raise UpdateError("trees: a value is not finite")
    if (trees_R[:, [ROOT, FEATURE, RIGHT]] % 1 != 0).any():
        raise UpdateError("trees: marks of roots, numbers of inputs and offsets are whole numbers")
    ends = [*np.flatnonzero(trees_R[:, ROOT])[1:].tolist(), len(trees_R)]
    row = 0
    for end in ends if len(trees_R) else []:
        if trees_R[row, ROOT] != 1 or _walk(trees_R, row, num_prepared, max_depth) != end:
            raise UpdateError(f"trees: the nodes from row {row} on make no whole tree")
        row = end
    return len(ends) if len(trees_R) else 0


def _walk(trees_R: Floats, row: int, num_prepared: int, depth_left: int) -> int:
    """The row after a subtree; -1 if it is none."""
    if row < 0 or row >= len(trees_R):
        return -1
    feature, offset = int(trees_R[row, FEATURE]), int(trees_R[row, RIGHT])
    if feature == -1:
        return row + 1 if offset == 0 else -1
    if not (0 <= feature < num_prepared and depth_left > 0 and trees_R[row, THRESHOLD] % 1 == 0):
        return -1
    right = _walk(trees_R, row + 1, num_prepared, depth_left - 1)
    return _walk(trees_R, right, num_prepared, depth_left - 1) if right == row + offset else -1
