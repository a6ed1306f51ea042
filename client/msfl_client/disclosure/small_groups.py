"""Which cases a sum may not be of: those of a class, or of a value of an input, that too few patients share.

One rule holds for all sums. At a site each class has training patients of at least the floor, or none, and so has each
group that a column of inputs sets apart: both sexes; the treated and the others; each level of a category, the first
one, too, which the columns of the others leave; those with a new lesion where most have none. A sum over the products
of such a column is a sum over that group, and over a group of one it is his row. A number that is predicted is such a
column, too: those whose EDSS has changed, where most have the same as before. So are those whom several columns set
apart, or a value far from all others (`set_apart`). Cases of smaller groups are left out of the sums; the site's people
are told, nobody else is.

Sums of products over one class alone, which only naive Bayes with components asks for, have the rule in each class.
Else the products are over all classes, and of a group in a class the sums tell how many there are, not who.

Legend: N cases, P inputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from msfl_client.disclosure.set_apart import far_out, in_small_cells, set_apart
from msfl_common.config.classification import Classification
from msfl_common.dataset import Dataset
from msfl_common.errors import Code, RefusedError
from msfl_common.feature_models import model_of
from msfl_common.feature_models.preparation import summed_columns
from msfl_common.feature_models.settings import is_numeric

Mask = NDArray[np.bool_]
_MOST_SHARE = 0.5


def in_large_groups(settings: Classification, cases: Dataset, min_patients: int) -> Dataset:
    """The cases less those of patients of small groups, taken out until no such group is left."""
    scaled_NP, patients_N = with_first_levels(settings, summed_columns(settings, cases)), np.array(cases.patients)
    keep_N = np.ones(len(cases.labels_N), dtype=bool)
    while (found := _smallest(settings, scaled_NP, cases.labels_N, patients_N, keep_N, min_patients)) is not None:
        keep_N &= ~np.isin(patients_N, patients_N[found[1]])
    return _take(cases, keep_N)


def describe_small_group(settings: Classification, cases: Dataset, min_patients: int) -> str | None:
    """A group of too few training patients, for the site's own log; None where there is none."""
    scaled_NP, patients_N = with_first_levels(settings, summed_columns(settings, cases)), np.array(cases.patients)
    keep_N = np.ones(len(cases.labels_N), dtype=bool)
    found = _smallest(settings, scaled_NP, cases.labels_N, patients_N, keep_N, min_patients)
    if found is None:
        return None
    number = len(np.unique(patients_N[found[1]]))
    return f"{number} training patient{'s' * (number != 1)} {found[0]}; expected none, or at least {min_patients}"


def with_first_levels(settings: Classification, columns_NP: NDArray[np.float64]) -> NDArray[np.float64]:
    """Columns of inputs with one more for each category, of its first level, which has no input of its own."""
    levels = [1 - columns_NP[:, places].sum(axis=1) for places in _categories(settings).values()]
    return np.column_stack([columns_NP, *levels])


def _categories(settings: Classification) -> dict[str, list[int]]:
    """Categories whose first level no single input sets apart, and the places of their inputs."""
    place_of = {name: place for place, name in enumerate(settings.inputs)}
    return {
        name: [place_of[one_input] for one_input in one.inputs]
        for name, one in settings.values.items()
        if len(one.inputs) > 1
    }


def groups(
    inputs_NP: NDArray[np.float64], patients_N: NDArray[np.str_], among_N: Mask, min_patients: int
) -> list[Mask]:
    """The groups that columns set apart among some cases: both of two values, or those without the usual value.

    A column has a usual value if patients of at least the floor share it; where all differ, nobody is set apart.
    """
    found = []
    for column_N in inputs_NP.T:
        values, counts = np.unique(column_N[among_N], return_counts=True)
        if len(values) < 2:
            continue
        usual_N = among_N & (column_N == values[counts.argmax()])
        if len(values) == 2:
            found += [among_N & ~usual_N, usual_N]
        elif len(np.unique(patients_N[usual_N])) >= min_patients:
            found.append(among_N & ~usual_N)
    return found


def is_large(group_N: Mask, patients_N: NDArray[np.str_], min_patients: int) -> bool:
    """Whether a group is of nobody, or of patients of at least the floor."""
    return not group_N.any() or len(np.unique(patients_N[group_N])) >= min_patients


def weight_of_patients(weights_N: NDArray[np.float64], patients_N: NDArray[np.str_]) -> float:
    """Effective number of patients behind a weighted sum, (sum w)^2 / sum w^2, w being added up for each patient."""
    of_patient = _by_patient(weights_N, patients_N)
    largest = of_patient.max(initial=0.0)
    if largest == 0:
        return 0.0
    shares = of_patient / largest
    return float(shares.sum() ** 2 / (shares**2).sum())


def expect_carried(
    weights: Mapping[str, NDArray[np.float64]], patients_N: NDArray[np.str_], apart: Sequence[Mask], min_patients: int
) -> None:
    """Refuse sums that too few patients carry.

    Args:
        weights: of each sum, how much each case counts in it, a column a score.
        patients_N: whose case each is.
        apart: groups of which no patient may carry more than half of a sum of products.
        min_patients: the floor, of the effective number of patients.

    Raises:
        RefusedError: with the code TOO_FEW_PATIENTS.
    """
    for name, weights_NV in weights.items():
        for weights_N in weights_NV.T:
            found = weight_of_patients(weights_N, patients_N)
            if 0 < found < min_patients * (1 - 1e-9):
                detail = f"{name}: carried by {found:.1f} patients, at least {min_patients} needed"
                raise RefusedError(Code.TOO_FEW_PATIENTS, detail)
            if name == "curvature" and min_patients > 1:
                for group_N in apart:
                    of_patient = _by_patient(weights_N[group_N], patients_N[group_N])
                    if of_patient.max(initial=0.0) > _MOST_SHARE * of_patient.sum():
                        detail = f"{name}: one patient carries more than half of what a group of an input adds"
                        raise RefusedError(Code.TOO_FEW_PATIENTS, detail)


def _by_patient(weights_N: NDArray[np.float64], patients_N: NDArray[np.str_]) -> NDArray[np.float64]:
    _, whose_N = np.unique(patients_N, return_inverse=True)
    return np.bincount(whose_N, weights=weights_N).astype(np.float64)


def _smallest(
    settings: Classification,
    scaled_NP: NDArray[np.float64],
    labels_N: NDArray[np.int64],
    patients_N: NDArray[np.str_],
    keep_N: Mask,
    min_patients: int,
) -> tuple[str, Mask] | None:
    """The first small group among the cases kept, and what sets it apart."""
    by_class = [(f"of class {number}", keep_N & (labels_N == number)) for number in np.unique(labels_N[keep_N])]
    for name, group_N in by_class:
        if not is_large(group_N, patients_N, min_patients):
            return name, group_N
    for among_N in [group_N for _, group_N in by_class] if model_of(settings).num_scatters(settings) > 1 else [keep_N]:
        for group_N in groups(scaled_NP, patients_N, among_N, min_patients):
            if not is_large(group_N, patients_N, min_patients):
                return f"whom {_column(settings, scaled_NP, group_N, among_N)} sets apart", group_N
        if not among_N.any():
            continue
        columns_NP, whose_N = scaled_NP[among_N], patients_N[among_N]
        degree = model_of(settings).degree_of_products
        for name, column_N in zip(_names(settings), columns_NP.T, strict=True):
            few_N = far_out(_power(column_N, degree), whose_N, min_patients)
            if few_N is not None:
                return f"with a {name} far from all others", _among(few_N, among_N)
        if (few_N := set_apart(columns_NP, labels_N[among_N], whose_N, min_patients)) is not None:
            return "whom several inputs together set apart", _among(few_N, among_N)
        if degree > 1 and (few_N := in_small_cells(columns_NP, whose_N, min_patients, degree)) is not None:
            return "whom products of inputs set apart", _among(few_N, among_N)
    return None


def _power(column_N: NDArray[np.float64], degree: int) -> NDArray[np.float64]:
    """A column as it stands in the highest of the products: a model sees it about its mean."""
    if degree == 1:
        return column_N
    centred_N = column_N - column_N.mean()
    largest = np.abs(centred_N).max(initial=0.0)
    return np.asarray((centred_N / largest) ** degree if largest > 0 else centred_N)


def _among(found: Mask, among_N: Mask) -> Mask:
    """Cases found among some, in all."""
    found_N = among_N.copy()
    found_N[among_N] = found
    return found_N


def _names(settings: Classification) -> tuple[str, ...]:
    """What columns are called that have one for each category's first level."""
    return (*settings.inputs, *(["the outcome"] if is_numeric(settings) else []), *_categories(settings))


def _column(settings: Classification, scaled_NP: NDArray[np.float64], group_N: Mask, among_N: Mask) -> str:
    """The input that sets a group apart."""
    rest_NP = scaled_NP[among_N & ~group_N]
    apart = [  # of one patient, any measured value is one of its own: where all others share one comes first
        (len(np.unique(rest_N)), name)
        for name, column_N, rest_N in zip(_names(settings), scaled_NP.T, rest_NP.T, strict=True)
        if not np.isin(column_N[group_N], rest_N).any()
        and min(len(np.unique(rest_N)), len(np.unique(column_N[group_N]))) == 1
    ]
    return min(apart, key=lambda one: one[0])[1] if apart else "an input"


def _take(cases: Dataset, keep_N: Mask) -> Dataset:
    patients = tuple(patient for patient, keep in zip(cases.patients, keep_N, strict=True) if keep)
    taken = replace(cases, features_NP=cases.features_NP[keep_N], labels_N=cases.labels_N[keep_N], patients=patients)
    return taken if cases.values_N is None else replace(taken, values_N=cases.values_N[keep_N])
