"""Which groups of patients a figure may be told of, beside that of all patients.

Figures of groups are sums over patients. Those of several variables, of all patients and of those whose level is not
known can be added and subtracted as anyone likes; whatever comes of that is made of the sums over the cells in which
all variables that are told cross (young women, old women, ...). So each such cell has patients of at least the floor,
or none, and a variable that would leave a smaller one is not told. Figures that rest on classes, as an AUROC, have the
classes among what crosses.

Under masks no group is told: where all sites but one tell their groups, the sum of all patients less those of the
groups would be that one site's own.

Legend: N cases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from msfl_common.config.study import StudyConfig
from msfl_common.metrics.strata import STRATIFIED

UNKNOWN = -1
Levels = Mapping[str, NDArray[np.int64]]


def may_tell(study: StudyConfig) -> bool:
    """Whether a study has figures of groups at all."""
    return study.task in STRATIFIED and study.secure_aggregation.method != "masks"


def told_variables(
    levels: Levels, patients: Sequence[str], floor: int, labels_N: NDArray[np.int64] | None = None
) -> tuple[str, ...]:
    """The variables whose groups may be told, the first that fit.

    Args:
        levels: by variable, the group of each case, from 0; `UNKNOWN` where it is not known.
        patients: N names.
        floor: fewest patients of a cell.
        labels_N: the class of each case, of a figure that rests on classes.
    """
    names_N = np.asarray(patients, dtype=np.str_)
    cell_N = np.zeros(len(names_N), np.int64) if labels_N is None else labels_N
    told = []
    for variable, level_N in levels.items():
        if len(np.unique(level_N[level_N != UNKNOWN])) < 2:
            continue
        _, finer_N = np.unique(np.stack([cell_N, level_N]), axis=1, return_inverse=True)
        finer_N = finer_N.reshape(-1)
        if all(len(np.unique(names_N[finer_N == cell])) >= floor for cell in np.unique(finer_N)):
            told.append(variable)
            cell_N = finer_N
    return tuple(told)
