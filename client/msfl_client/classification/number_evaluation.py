"""How far a shared model's numbers are off for a site's cases, as sums and figures that may leave.

Legend: N cases.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from msfl_client.disclosure.floors import check_floor, floor_of
from msfl_client.disclosure.small_groups import groups, is_large
from msfl_common.config.site import Policy
from msfl_common.config.study import StudyConfig
from msfl_common.errors import Code, RefusedError
from msfl_common.messages.validation_metrics import ValidationMetrics
from msfl_common.metrics.intervals import Estimate
from msfl_common.metrics.regression import NUM_MOMENTS, REGRESSION_METRICS, measure_numbers, moments_of

Floats = NDArray[np.float64]

_UNKNOWN_EACH = 2  # of a patient: the number, and the one that is predicted
_NUM_SUMS = NUM_MOMENTS - 1  # how many cases there are is known
_NUM_WITH_ERRORS = _NUM_SUMS + len(REGRESSION_METRICS)


class CaseNumbers(NamedTuple):
    """What a model says of each of a site's cases, and what is so."""

    predicted_N: Floats
    values_N: Floats
    patients: Sequence[str]


def measure_numbers_at_site(
    predicted_N: Floats, values_N: Floats, patients: Sequence[str], study: StudyConfig, policy: Policy
) -> ValidationMetrics:
    """Metrics and moments of a site's cases.

    The floor is the larger of the policy's and the study's `min_patients`. As many numbers as there are unknowns, the
    number and the prediction of each patient, are equations with one solution: of so few patients nothing is told, and
    of a few more no standard error, and so no interval.

    Args:
        predicted_N: the model's, in the outcome's unit.
        values_N: the outcomes.
        patients: N patient names.
        study: its floor.
        policy: the site's floor.

    Raises:
        RefusedError: with the code TOO_FEW_PATIENTS: too few patients, or few whose number sets them apart.
        ValueError: not one prediction and patient a case, or a number that is not finite.
    """
    start = time.monotonic()
    num_patients, floor = len(set(patients)), floor_of(policy, study)
    check_floor(policy, study, num_patients)
    if floor > 1:
        _check_unknown(num_patients)
        _check_alike(values_N, patients, floor)
    estimates = measure_numbers(values_N, predicted_N, patients)
    if floor > 1 and _UNKNOWN_EACH * num_patients <= _NUM_WITH_ERRORS:
        estimates = {name: _without_error(one) for name, one in estimates.items()}
    return ValidationMetrics(
        estimates={name: found for name, found in estimates.items() if found.num_cases},
        num_cases=len(values_N),
        seconds=time.monotonic() - start,
        moments=moments_of(values_N, predicted_N).sum(axis=0),
        min_patients=num_patients,
    )


def _check_unknown(num_patients: int) -> None:
    if _UNKNOWN_EACH * num_patients <= _NUM_SUMS:
        needed = _NUM_SUMS // _UNKNOWN_EACH + 1
        raise RefusedError(
            Code.TOO_FEW_PATIENTS,
            f"{num_patients} patients behind {_NUM_SUMS} sums of their numbers, at least {needed} needed",
        )


def _check_alike(values_N: Floats, patients: Sequence[str], floor: int) -> None:
    """All have one number, or few have another than most: sums would tell theirs."""
    names_N, all_N = np.asarray(patients, dtype=np.str_), np.ones(len(values_N), dtype=bool)
    if len(np.unique(values_N)) < 2:
        raise RefusedError(Code.TOO_FEW_PATIENTS, f"all {len(values_N)} cases have one outcome")
    for group_N in groups(values_N[:, None], names_N, all_N, floor):
        if not is_large(group_N, names_N, floor):
            few = len(np.unique(names_N[group_N]))
            raise RefusedError(
                Code.TOO_FEW_PATIENTS, f"{few} patients have another outcome than most, at least {floor} needed"
            )


def _without_error(estimate: Estimate) -> Estimate:
    return replace(estimate, standard_error=math.nan, ci95_low=math.nan, ci95_high=math.nan)
