"""Observations as a model takes them in: matrices, and a guard against labels among the inputs.

Legend: N cases, P inputs.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from msfl_client.clinical.observations import Observation, Observations
from msfl_client.features.table import FeatureTable
from msfl_common.config.classification import Classification
from msfl_common.config.clinical_values import CategoryValue
from msfl_common.dataset import Dataset
from msfl_common.errors import InputError
from msfl_common.feature_models import is_numeric

_LEAST_NUMBERS, _ON_A_LINE = 4, 1e-9
_NOBODY = 1e-9  # share of training cases
_LEAST_ARRANGEMENTS = 100  # fewer, and an input may well equal the label by chance


def complete(found: Observations, classification: Classification, table: FeatureTable | None) -> Observations:
    """The observations that have every input of a feature model; the others are left out for want of one."""
    rows = rows_by_visit(table)
    lacking = {one.key for one in found.kept if _values(one, classification, rows) is None}
    kept = tuple(one for one in found.kept if one.key not in lacking)
    return replace(found, kept=kept, left_out={**found.left_out, **dict.fromkeys(sorted(lacking), "no-input")})


def missing_inputs(found: Observations, classification: Classification, table: FeatureTable | None) -> dict[str, int]:
    """How many observations with a label lack an input of a feature model, by input."""
    rows = rows_by_visit(table)
    known = [known_inputs(one, classification, rows) for one in found.kept]
    lacking = {name: sum(name not in of_one for of_one in known) for name in classification.inputs}
    return {values_of(classification, [name])[0]: count for name, count in lacking.items() if count}


def dataset_of(
    found: Observations | Sequence[Observation], classification: Classification, table: FeatureTable | None
) -> Dataset:
    """Inputs and labels of observations, inputs in the order of `classification.inputs`.

    Args:
        found: observations; one without every input is not in the result (`complete` counts them).
        classification: which features and clinical values the model sees.
        table: features of the cases, harmonized or not; None where the model sees none.

    Raises:
        InputError: an input is the label under another name.
    """
    rows = rows_by_visit(table)
    kept = found.kept if isinstance(found, Observations) else found
    pairs = [(one, values) for one in kept if (values := _values(one, classification, rows)) is not None]
    inputs = np.array([values for _, values in pairs], np.float64).reshape(len(pairs), len(classification.inputs))
    labels = np.array([one.label for one, _ in pairs], np.int64)
    outcome = classification.outcome
    name, patients = outcome.column or outcome.endpoint or "the label", tuple(one.patient for one, _ in pairs)
    if is_numeric(classification):
        numbers_N = np.array([one.value for one, _ in pairs], np.float64)
        refuse_equal(classification.inputs, inputs, numbers_N, name)
        return Dataset(classification.inputs, inputs, labels, patients, numbers_N)
    refuse_leak(*as_values(classification, inputs), labels, name)
    return Dataset(classification.inputs, inputs, labels, patients)


def refuse_equal(
    names: Sequence[str], features_NP: NDArray[np.float64], values_N: NDArray[np.float64], outcome: str
) -> None:
    """Refuse an input that is the number to predict, whatever its unit: all cases lie on one line.

    Nothing is said of fewer cases than may do so by chance, nor of so few numbers.

    Raises:
        InputError: names the input and the outcome.
    """
    if len(set(values_N.tolist())) < _LEAST_NUMBERS:
        return
    for name, column_N in zip(names, features_NP.T, strict=True):
        if abs(float(_course(column_N) @ _course(values_N))) > 1 - _ON_A_LINE:
            raise InputError(
                f"input {name} and outcome {outcome} are the same in all {len(values_N)} cases, up to their units: "
                f"leave {name} out of the study, or correct the table"
            )


def _course(values_N: NDArray[np.float64]) -> NDArray[np.float64]:
    """Numbers about their mean, with length 1 whatever their unit; all 0 where all are one number."""
    for _ in range(2):  # the largest first, so that no square is beyond what a float holds
        values_N = values_N / (np.abs(values_N).max() or 1.0)
        values_N = values_N - values_N.mean()
    return values_N / (np.linalg.norm(values_N) or 1.0)


def refuse_leak(
    names: Sequence[str], features_NP: NDArray[np.float64], labels_N: NDArray[np.int64], outcome: str
) -> None:
    """Refuse an input that is the label: each of its values goes with one class, and each class with one value.

    Nothing is said where so few cases could be labelled in less than 100 ways that it may be chance.

    Raises:
        InputError: names the input and the outcome.
    """
    if _arrangements(labels_N) < _LEAST_ARRANGEMENTS:
        return
    classes = len(set(labels_N.tolist()))
    for name, column in zip(names, features_NP.T, strict=True):
        pairs = set(zip(column.tolist(), labels_N.tolist(), strict=True))
        if len(pairs) == classes == len({value for value, _ in pairs}):
            raise InputError(
                f"input {name} and outcome {outcome} are the same in all {len(labels_N)} cases, up to their names: "
                f"leave {name} out of the study, or correct the table"
            )


def _arrangements(labels_N: NDArray[np.int64]) -> float:
    """In how many ways these labels could stand over the cases."""
    counts = Counter(labels_N.tolist()).values()
    ways = math.lgamma(len(labels_N) + 1) - sum(math.lgamma(count + 1) for count in counts)
    return math.exp(min(ways, 700.0)) if len(counts) > 1 else 1.0


Rows = Mapping[tuple[int, str, str | None], Mapping[str, float]]


def rows_by_visit(table: FeatureTable | None) -> Rows:
    """Features of a table by folder, patient and visit_id."""
    rows = table.rows if table is not None else ()
    return {(row.dataset, row.participant_id, row.session_id): row.features for row in rows}


def known_inputs(one: Observation, classification: Classification, rows: Rows) -> dict[str, float]:
    """Those of a model's inputs that are known of an observation, in their order."""
    features = rows.get((one.dataset, one.subject, one.visit_id), {})
    known = {**features, **{str(name): value for name, value in one.clinical.items()}}
    return {name: known[name] for name in classification.inputs if name in known}


def _values(one: Observation, classification: Classification, rows: Rows) -> list[float] | None:
    """The inputs in their order; None where one is missing."""
    known = known_inputs(one, classification, rows)
    return list(known.values()) if len(known) == len(classification.inputs) else None


def values_of(classification: Classification, inputs: Iterable[str]) -> list[str]:
    """The features and clinical values that inputs are of, each once."""
    of_value = {name: value.name for name, value in classification.value_of.items()}
    return [*dict.fromkeys(of_value.get(name, name) for name in inputs)]


def as_values(
    classification: Classification, inputs_NP: NDArray[np.float64]
) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Features and clinical values, by name and in columns: a category's inputs are one again, the place of its level.

    It is what the sums of a study are about, however the study writes a value's levels.
    """
    place = len(classification.features)
    columns = [*inputs_NP[:, :place].T]
    for one in classification.values.values():
        width = len(one.inputs)
        columns.append(inputs_NP[:, place : place + width] @ np.arange(1.0, width + 1))
        place += width
    values_NV = np.array(columns).reshape(len(columns), len(inputs_NP)).T
    return (*classification.features, *classification.clinical), values_NV


def never_trained(
    classification: Classification, mean_P: NDArray[np.float64], known: Mapping[str, float]
) -> str | None:
    """The level of a category that a case has and no training case had, by the means of these; None: there is none."""
    means = dict(zip(classification.inputs, mean_P.tolist(), strict=True))
    for one in classification.values.values():
        if not isinstance(one, CategoryValue):
            continue
        of_levels = [1 - sum(means[name] for name in one.inputs), *(means[name] for name in one.inputs)]
        level = next((number for number, name in enumerate(one.inputs, start=1) if known[name]), 0)
        if of_levels[level] <= _NOBODY:
            return f"{one.name}: {one.levels[level]}"
    return None
