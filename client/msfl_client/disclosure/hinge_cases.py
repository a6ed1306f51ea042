"""Which cases a support vector machine's sums are of.

The hinge drops a case at once when it passes the margin, so that the difference of two rounds' curvatures is the row
of the one patient who passed. At a site, cases therefore come and go in numbers: a round's set of cases differs from
each set before by patients of at least the floor, and no group that an input sets apart differs by fewer; else the
nearest set before is kept, and its cases stay on the parabola on which they were. Gradient and curvature of a kept set
tell nothing that the set has not told.

Legend: N cases, V scores; see `msfl_common.feature_models`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from msfl_client.disclosure.small_groups import Mask, is_large


def settled_cases(
    shorts_NV: Sequence[NDArray[np.float64]], patients_N: NDArray[np.str_], groups: Sequence[Mask], floor: int
) -> Mask:
    """The cases that count now, N x V.

    Args:
        shorts_NV: how far cases are short of the margin at each state that was answered, in their order, the state to
            answer last.
        patients_N: whose case each is.
        groups: those that inputs set apart.
        floor: fewest patients.
    """
    return np.stack(
        [
            _settled([short_NV[:, score] > 0 for short_NV in shorts_NV], patients_N, groups, floor)
            for score in range(shorts_NV[-1].shape[1])
        ],
        axis=1,
    )


def _settled(wanted: Sequence[Mask], patients_N: NDArray[np.str_], groups: Sequence[Mask], floor: int) -> Mask:
    """The set in force after a sequence of sets that the hinge would take; the empty set is always told."""
    told = [np.zeros(len(patients_N), dtype=bool)]
    now = told[0]
    for set_N in wanted:
        if all(_differ_enough(set_N, other, patients_N, groups, floor) for other in told):
            told.append(set_N)
            now = set_N
        else:
            now = min(told, key=lambda other: int((other ^ set_N).sum()))
    return now


def _differ_enough(one: Mask, other: Mask, patients_N: NDArray[np.str_], groups: Sequence[Mask], floor: int) -> bool:
    passed_N = one ^ other
    return is_large(passed_N, patients_N, floor) and all(
        is_large(passed_N & group, patients_N, floor) for group in groups
    )
