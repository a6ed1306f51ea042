"""What a site tells of the shared model's answers to its cases.

Legend: K classes, C scored classes, G groups.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import AliasChoices, Field, PlainSerializer, PlainValidator

from msfl_common.errors import UpdateError
from msfl_common.metrics.intervals import Estimate
from msfl_common.metrics.registry import possible_range
from msfl_common.metrics.regression import NUM_MOMENTS, contradiction
from msfl_common.metrics.score_bins import check_confusion, check_outcomes, check_score_bins, score_bins_shape
from msfl_common.system.checked_numbers import number_within, whole_number

Floats = NDArray[np.float64]

_ROUNDING = 1e-9  # a mean of ones may come out a little above
_FIELDS = ("mean", "standard_error", "ci95_low", "ci95_high", "num_cases", "num_patients")


def _as_array(value: Any) -> Floats | None:
    return None if value is None else np.asarray(value, dtype=np.float64)


def _as_lists(value: Floats | None) -> Any:
    return None if value is None else value.tolist()


# In JSON nested lists, which come back as the same array.
_Array = Annotated[Floats | None, PlainValidator(_as_array), PlainSerializer(_as_lists)]


@dataclass(frozen=True)
class ValidationMetrics:
    """A site's aggregate validation of the shared weights; never a value of one case.

    Attributes:
        estimates: metric to its mean and interval.
        num_cases: cases measured.
        seconds: how long that took.
        score_bins: of a classification, C x G x 3, 0 where withheld; `cells` in the message and the ledger.
        confusion: of a classification, K x K, rows true, columns predicted; 0 where withheld.
        moments: of a regression, its sums over cases; see `metrics.regression`.
        min_patients: the smallest number of patients behind any of it; known at the site, which tells nobody.
    """

    estimates: Mapping[str, Estimate]
    num_cases: int
    seconds: float
    # Comparing arrays gives no single truth. Checkpoints of earlier versions have `cells`.
    score_bins: Annotated[_Array, Field(validation_alias=AliasChoices("score_bins", "cells"))] = field(
        default=None, compare=False
    )
    confusion: _Array = field(default=None, compare=False)
    moments: _Array = field(default=None, compare=False)
    min_patients: int = field(default=0, compare=False)

    @property
    def arrays(self) -> dict[str, Floats]:
        """What travels as arrays; nothing in a segmentation."""
        known = {"cells": self.score_bins, "confusion": self.confusion, "moments": self.moments}
        return {name: value for name, value in known.items() if value is not None}


def number_names(names: Iterable[str]) -> set[str]:
    """Under which names the estimates of these metrics may travel."""
    return {f"{name}.{part}" for name in names for part in _FIELDS}


def flat_numbers(estimates: Mapping[str, Estimate]) -> dict[str, int | float]:
    """Estimates as `dsc.mean`, `dsc.ci95_low`, ...; without what is not defined."""
    numbers = {f"{name}.{part}": getattr(found, part) for name, found in estimates.items() for part in _FIELDS}
    return {name: value for name, value in numbers.items() if value is not None and math.isfinite(value)}


def estimate_of(numbers: Mapping[str, float], name: str) -> Estimate:
    """The estimate of a metric; the interval is missing where it is not estimable.

    Raises:
        UpdateError: mean or count is not there, or the count is none.
    """
    if missing := [part for part in ("mean", "num_cases") if f"{name}.{part}" not in numbers]:
        raise UpdateError(f"{name}: the metrics lack {missing[0]}")
    behind = f"{name}.num_patients"  # sites of earlier versions do not tell it
    return Estimate(
        mean=numbers[f"{name}.mean"],
        num_cases=whole_number(f"{name}.num_cases", numbers[f"{name}.num_cases"]),
        standard_error=numbers.get(f"{name}.standard_error", math.nan),
        ci95_low=numbers.get(f"{name}.ci95_low", math.nan),
        ci95_high=numbers.get(f"{name}.ci95_high", math.nan),
        num_patients=whole_number(behind, numbers[behind], least=0) if behind in numbers else None,
    )


def array_shapes(num_classes: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the arrays of a classification into so many classes; of a number with 1, and none with 0."""
    if not num_classes:
        return {}
    if num_classes == 1:
        return {"moments": (NUM_MOMENTS,)}
    return {"cells": score_bins_shape(num_classes), "confusion": (num_classes, num_classes)}


def check_metrics(metrics: ValidationMetrics, min_patients: int) -> None:
    """Refuse figures that no cases can have: out of a metric's range, of more cases than there are, against each other.

    Raises:
        UpdateError: the first of them.
    """
    for name, estimate in metrics.estimates.items():
        _check_estimate(name, estimate, metrics.num_cases)
    if metrics.score_bins is not None:
        check_score_bins(metrics.score_bins, metrics.num_cases, min_patients)
    if metrics.confusion is not None:
        check_confusion(metrics.confusion, metrics.num_cases)
    if metrics.moments is not None and (why := contradiction(metrics.moments, metrics.num_cases)):
        raise UpdateError(f"moments: {why}")
    if metrics.score_bins is not None and metrics.confusion is not None:
        check_outcomes(metrics.score_bins, metrics.confusion)


def _check_estimate(name: str, estimate: Estimate, num_cases: int) -> None:
    low, high = possible_range(name)
    width = high - low
    number_within(f"{name}.mean", estimate.mean, low - _ROUNDING, high + _ROUNDING)
    whole_number(f"{name}.num_cases", estimate.num_cases, most=num_cases)
    if estimate.num_patients is not None:
        whole_number(f"{name}.num_patients", estimate.num_patients, least=0, most=estimate.num_cases)
    spread = (estimate.standard_error, estimate.ci95_low, estimate.ci95_high)
    if all(map(math.isnan, spread)):
        return
    number_within(f"{name}.standard_error", estimate.standard_error, 0.0, width)
    for part, end in (("ci95_low", estimate.ci95_low), ("ci95_high", estimate.ci95_high)):
        number_within(f"{name}.{part}", end, low - width, high + width)  # a mirrored interval may end beyond the range
    if estimate.ci95_low > estimate.ci95_high:
        raise UpdateError(f"{name}: expected an interval from low to high")
