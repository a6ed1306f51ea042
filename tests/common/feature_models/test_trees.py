"""Trees walked by hand."""

from __future__ import annotations

import numpy as np

from msfl_common.feature_models.trees import to_grid, tree_scores


def test_a_tree_is_walked_as_by_hand() -> None:
    trees = np.array(
        [
            [1, 0, 3, 2, 0],  # input 0 below 3?
            [0, -1, 0, 0, 10],
            [0, 1, -1, 2, 0],  # input 1 below -1?
            [0, -1, 0, 0, 20],
            [0, -1, 0, 0, 30],
            [1, -1, 0, 0, 0.5],
        ],
        dtype=float,
    )
    grid = np.array([[2, 0], [3, -2], [3, -1], [-9, 9]], dtype=float)
    assert tree_scores(trees, grid, 2)[:, 0].tolist() == [10.5, 20.5, 30.5, 10.5]
    assert tree_scores(trees[:0], grid, 2).tolist() == [[0.0]] * 4


def test_the_grid_is_a_twentieth_of_the_deviation() -> None:
    assert to_grid(np.array([[0.26, -1e9]]), np.array([2.0, 1.0])).tolist() == [[3.0, -400.0]]
