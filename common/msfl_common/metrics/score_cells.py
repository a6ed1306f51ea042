"""A fixed grid of scores, so that the groups of several sites add up, seen or under masks, to the same ones.

A site's groups (`score_bins`) stand where their mean score lies; each goes whole into the cell that this is in, so that
no cell tells of fewer patients than a group does. Cells are finer towards 0 and 1, as scores of rare outcomes crowd
there: eight to each halving of the distance, ten halvings. Their bounds are binary fractions, and so the same on every
machine.

Legend: N scores, G groups (mean score, cases, positive cases), L cells.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_OCTAVES, _PARTS = 10, 8
_SIDE = _OCTAVES * _PARTS + 1  # cells below 1/2; the first takes all that is nearest to 0
NUM_CELLS = 2 * _SIDE
_FINEST = 2.0**46  # mean scores are multiples of its inverse: the mean of one cell's mean is itself


def cells_of(score_N: Floats) -> NDArray[np.int64]:
    """The cell of each score from 0 to 1, low scores first."""
    from_end_N = np.where(score_N < 0.5, score_N, 1 - score_N)
    mantissa_N, exponent_N = np.frexp(from_end_N)
    part_N = np.floor((mantissa_N - 0.5) * (2 * _PARTS))
    place_N = np.where(from_end_N < 2.0 ** -(_OCTAVES + 1), 0, (_OCTAVES + exponent_N) * _PARTS + part_N + 1)
    place_N = np.clip(place_N, 0, _SIDE - 1)
    return np.where(score_N < 0.5, place_N, NUM_CELLS - 1 - place_N).astype(np.int64)


def add_to_cells(groups_G3: Floats) -> Floats:
    """Groups on the grid, L x 3: sum of scores, cases and positive cases of each cell; rows of 0 count for nothing."""
    groups_G3 = groups_G3[groups_G3[:, 1] > 0]
    cell_G, cells_L3 = cells_of(groups_G3[:, 0]), np.zeros((NUM_CELLS, 3))
    sums_G3 = groups_G3 * np.column_stack([groups_G3[:, 1], np.ones((len(groups_G3), 2))])
    for cell in np.unique(cell_G):
        cells_L3[cell] = [math.fsum(column) for column in sums_G3[cell_G == cell].T]  # in whatever order they come
    return cells_L3


def groups_of_cells(cells_L3: Floats) -> Floats:
    """Groups of cells that hold cases: mean score, cases and positive cases, low scores first."""
    (used,) = np.nonzero(cells_L3[:, 1])
    mean_G = np.round(cells_L3[used, 0] / cells_L3[used, 1] * _FINEST) / _FINEST
    low_L, high_L = bounds_of_cells()
    return np.column_stack([np.clip(mean_G, low_L[used], high_L[used]), cells_L3[used, 1:]])


def bounds_of_cells() -> tuple[Floats, Floats]:
    """The smallest score of each cell, and what is as large or above all of them; L each."""
    halvings, parts = np.divmod(np.arange(_SIDE - 1), _PARTS)
    starts = np.ldexp(0.5 + parts / (2 * _PARTS), halvings - _OCTAVES)
    low_S, high_S = np.append(0.0, starts), np.append(starts, np.nextafter(0.5, 0))
    high_S[:-1] -= 1 / _FINEST
    return np.concatenate([low_S, 1 - high_S[::-1]]), np.concatenate([high_S, 1 - low_S[::-1]])
