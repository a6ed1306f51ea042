"""Whom weighted sums of columns tell from all others: of the treated, the one who is on no treatment's level.

With weights w such that X w is 0 but in a few patients' cases, the sums of products X'X w are made of the values of
these alone. There are such weights where what the columns span holds a vector that is 0 but in these cases. Of one
patient that is a matter of leverage (the share of the case's indicator that the columns span: 1). The fewest
patients of such a vector are the minimum distance of a linear code, which no fast algorithm finds for certain; random
information sets (Prange 1962, IRE Trans. Inf. Theory 8: 5-9) find it in nearly all cases where these are few. Patients
of several visits are looked at in all sets of few, too, as far as there are not too many.

Columns that vary in as many ways as there are cases span everything, by weights that nobody knows who does not know the
cases; weights of columns of few values can be guessed, and these are looked at by themselves.

A value far from all others sets its patient apart nearly as well, and so do nearly equal columns: with a share h, of a
column's variance or of a case's indicator, the sums tell each other value of the patient to within sqrt((1 - h) / h)
standard deviations. And where a model's columns are products of inputs, as a polynomial kernel's are, cells in which
few-valued inputs cross are sets apart, too.

Legend: N cases, P inputs, K classes, R dimensions of what columns span.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import qr

Mask = NDArray[np.bool_]
_EVEN = 1e-9  # of 1: what rounding leaves
_CARRIED = 1e-6  # of the value in a case of the information set, which is 1
_MOST_SHARE = 0.99  # the patient's other values are known to a tenth of their deviation
_MOST_OF_SEVERAL = 0.999  # of a column's variance: of skewed columns of a dozen cases, four often have 0.99
_FEW_VALUES = 20  # such as those of the EDSS
_MOST_SETS = 5000  # of patients with several visits: two seconds
_TRIALS = 30  # of 288 pairs, threes and fours among 55 to 2000 cases 5 were missed, in as many columns as cases
_SPREAD = 2.0  # of the logarithm of a case's random weight
_WORST_CONDITION = 1e8


def set_apart(
    inputs_NP: NDArray[np.float64], labels_N: NDArray[np.int64], patients_N: NDArray[np.str_], min_patients: int
) -> Mask | None:
    """The cases of fewer than `min_patients` patients whom a weighted sum of inputs and classes tells from all others.

    Args:
        inputs_NP: the columns whose products are summed.
        labels_N: the class of each case, one at least; sums of each class, and numbers of cases, are sums over
            columns, too.
        patients_N: whose case each is.
        min_patients: the floor.

    Returns:
        Which cases, all visits of such patients; None where none were found.
    """
    classes_NK = np.equal.outer(labels_N, np.unique(labels_N)).astype(np.float64)
    most_values = max(2, min(_FEW_VALUES, len(labels_N) // 2))  # of few cases, measured values are few, too
    few_P = np.array([len(np.unique(column_N)) <= most_values for column_N in inputs_NP.T], dtype=bool)
    names, whose_N = np.unique(patients_N, return_inverse=True)
    for columns_NP in (inputs_NP[:, few_P], inputs_NP):
        basis_NR = _basis(columns_NP, classes_NK)
        for find in (_alone, _together):
            found_Q = find(basis_NR, whose_N, min_patients)
            if len(found_Q):
                return np.isin(patients_N, names[found_Q])
    return None


def far_out(column_N: NDArray[np.float64], patients_N: NDArray[np.str_], min_patients: int) -> Mask | None:
    """The cases of the fewest patients below the floor whose values are nearly all of a column's variance; or None."""
    names, whose_N = np.unique(patients_N, return_inverse=True)
    largest = np.abs(column_N).max(initial=0.0)
    scaled_N = column_N / largest if largest > 0 else column_N
    from_middle_Q = np.zeros(len(names))
    np.maximum.at(from_middle_Q, whose_N, np.abs(scaled_N - np.median(scaled_N)))
    farthest_Q, total = np.argsort(-from_middle_Q, kind="stable"), _squares(scaled_N)
    for number in range(1, min(min_patients, len(names))):
        found_N = np.isin(whose_N, farthest_Q[:number])
        most = _MOST_SHARE if number == 1 else _MOST_OF_SEVERAL
        if total > 0 and 1 - _squares(scaled_N[~found_N]) / total > most:
            return found_N
    return None


def _squares(values_N: NDArray[np.float64]) -> float:
    """Sum of squares about the mean; 0 where all are alike but for rounding."""
    spread = float(np.ptp(values_N)) if len(values_N) else 0.0
    return float(np.square(values_N - values_N.mean()).sum()) if spread > _EVEN * float(np.abs(values_N).max()) else 0.0


def in_small_cells(
    inputs_NP: NDArray[np.float64], patients_N: NDArray[np.str_], min_patients: int, degree: int
) -> Mask | None:
    """Cases of patients in cells of too few, in which inputs of few values cross; None where there are none.

    Args:
        inputs_NP: the columns.
        patients_N: whose case each is.
        min_patients: the floor.
        degree: of the products that are columns, too. A level of a column of q values is a polynomial of degree q - 1.
    """
    names, whose_N = np.unique(patients_N, return_inverse=True)
    few_Q = np.zeros(len(names), dtype=bool)
    for columns_NC in _crossing(inputs_NP, degree):
        _, cell_N = np.unique(columns_NC, axis=0, return_inverse=True)
        pairs = np.unique(np.stack([cell_N.ravel(), whose_N], axis=1), axis=0)
        is_few_C = np.bincount(pairs[:, 0]) < min_patients
        few_Q[pairs[is_few_C[pairs[:, 0]], 1]] = True
    return np.isin(patients_N, names[few_Q]) if few_Q.any() else None


def _crossing(inputs_NP: NDArray[np.float64], degree: int) -> Iterator[NDArray[np.float64]]:
    """Each set of columns of whose levels products of a degree can tell, with none of a larger such set."""
    costs_P = np.array([len(np.unique(column_N)) - 1 for column_N in inputs_NP.T])
    places = np.flatnonzero((costs_P > 0) & (costs_P <= degree))
    for number in range(1, degree + 1):
        for chosen in combinations(places, number):
            left = degree - costs_P[list(chosen)].sum()
            rest = [costs_P[place] for place in places if place not in chosen]
            if left >= 0 and all(cost > left for cost in rest):
                yield inputs_NP[:, chosen]


def _basis(columns_NP: NDArray[np.float64], classes_NK: NDArray[np.float64]) -> NDArray[np.float64]:
    """An orthonormal basis of what columns and classes span, N x R."""
    largest_P = np.abs(columns_NP).max(axis=0, initial=0.0)
    columns_NP = columns_NP / np.where(largest_P > 0, largest_P, 1.0)  # squares of any size can be told
    spread_P = columns_NP.std(axis=0)
    varying_P = spread_P > _EVEN
    scaled_NP = (columns_NP[:, varying_P] - columns_NP[:, varying_P].mean(axis=0)) / spread_P[varying_P]
    basis_NR, sizes_R, _ = np.linalg.svd(np.column_stack([scaled_NP, classes_NK]), full_matrices=False)
    return np.asarray(basis_NR[:, sizes_R > _EVEN * sizes_R.max(initial=0.0)])


def _alone(basis_NR: NDArray[np.float64], whose_N: NDArray[np.intp], min_patients: int) -> NDArray[np.intp]:
    """The first patient of whose cases the basis spans a vector, or nearly one where columns are few beside cases."""
    num_cases, rank = basis_NR.shape
    if min_patients > 1 and rank < num_cases:
        are_few = 2 * (rank + int(np.bincount(whose_N).max())) <= num_cases  # else nearly one is nothing unusual
        most = _MOST_SHARE if are_few else 1 - _EVEN
        for number in np.flatnonzero(_sums_of_shares(basis_NR, whose_N) > most):
            if _largest_share(basis_NR, whose_N, (number,)) > most:
                return np.array([number])
    return np.array([], dtype=np.intp)


def _sums_of_shares(basis_NR: NDArray[np.float64], whose_N: NDArray[np.intp]) -> NDArray[np.float64]:
    """Of each patient no less than the largest share of a vector of the cases that the basis spans."""
    return np.asarray(np.bincount(whose_N, weights=np.square(basis_NR).sum(axis=1)), dtype=np.float64)


def _largest_share(basis_NR: NDArray[np.float64], whose_N: NDArray[np.intp], numbers: Sequence[int]) -> float:
    """The largest share, of 1, of any vector of some patients' cases that the basis spans."""
    return float(np.linalg.svd(basis_NR[np.isin(whose_N, numbers)], compute_uv=False)[0]) ** 2


def _together(basis_NR: NDArray[np.float64], whose_N: NDArray[np.intp], min_patients: int) -> NDArray[np.intp]:
    """Patients below the floor of whom the basis spans a vector."""
    num_cases, rank = basis_NR.shape
    most_cases = (min_patients - 1) * int(np.bincount(whose_N).max())
    if min_patients > 2 and rank <= num_cases - most_cases:  # beyond that, any columns span such vectors
        found_Q = _by_information_sets(basis_NR, whose_N, min_patients, most_cases)
        if len(found_Q) or most_cases == min_patients - 1:  # a visit each
            return found_Q
        return _among_all_sets(basis_NR, whose_N, min_patients)
    return np.array([], dtype=np.intp)


def _by_information_sets(
    basis_NR: NDArray[np.float64], whose_N: NDArray[np.intp], min_patients: int, most_cases: int
) -> NDArray[np.intp]:
    """An information set is of R cases whose rows are independent.

    Each vector that is 1 in one of them and 0 in the others is looked at. Where the set has one case of those sought,
    theirs is among these vectors.
    """
    rng = np.random.default_rng(0)
    for _ in range(_TRIALS):
        independent_R = _information_set(basis_NR, rng)
        if np.linalg.cond(basis_NR[independent_R]) > _WORST_CONDITION:
            continue
        carried_RN = np.abs(np.linalg.solve(basis_NR[independent_R].T, basis_NR.T)) > _CARRIED
        for carried_N in carried_RN[carried_RN.sum(axis=1) <= most_cases]:
            found_Q: NDArray[np.intp] = np.unique(whose_N[carried_N])
            if len(found_Q) < min_patients:
                return found_Q
    return np.array([], dtype=np.intp)


def _among_all_sets(basis_NR: NDArray[np.float64], whose_N: NDArray[np.intp], min_patients: int) -> NDArray[np.intp]:
    """In sets of two, then three and so on, as far as there are not too many."""
    sums_Q, looked_at = _sums_of_shares(basis_NR, whose_N), 0
    for size in range(2, min_patients):
        for numbers in combinations(range(len(sums_Q)), size):
            if sums_Q[list(numbers)].sum() > 1 - _EVEN:
                if _largest_share(basis_NR, whose_N, numbers) > 1 - _EVEN:
                    return np.array(numbers)
                looked_at += 1
            if looked_at >= _MOST_SETS:
                return np.array([], dtype=np.intp)
    return np.array([], dtype=np.intp)


def _information_set(basis_NR: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.intp]:
    weights_N = np.exp(_SPREAD * rng.standard_normal(len(basis_NR)))
    _, order_N = qr((weights_N[:, None] * basis_NR).T, mode="r", pivoting=True)
    return np.asarray(order_N[: basis_NR.shape[1]], dtype=np.intp)
