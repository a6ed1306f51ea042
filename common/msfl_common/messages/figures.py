"""Messages that hold figures alone: the number of cases, and arrays as the table of kinds declares them.

Legend: what `config.message_kinds` says of a kind's arrays is all that its message can hold, on both sides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from numpy.typing import NDArray

from msfl_common.config.message_kinds import KINDS, FigureArray
from msfl_common.errors import UpdateError
from msfl_common.messages.arrays import ARRAYS, unpack_floats
from msfl_common.messages.records import METRICS, NUM_CASES, exactly
from msfl_common.system.checked_numbers import whole_number


@dataclass(frozen=True)
class Figures:
    """Figures of a site.

    Attributes:
        kind: the name of their kind in the table.
        num_cases: cases that they are of.
        arrays: those that the kind declares, float64.
    """

    kind: str
    num_cases: int
    arrays: Mapping[str, NDArray[np.float64]]


def pack_figures(figures: Figures) -> RecordDict:
    """Figures as a message.

    Raises:
        ValueError: the kind is none of figures alone, or its arrays are not as declared.
    """
    declared = _declared(figures.kind)
    if set(figures.arrays) != set(declared):
        raise ValueError(f"{figures.kind}: expected the arrays {sorted(declared)}, found {sorted(figures.arrays)}")
    for name, array in declared.items():
        _check(name, figures.arrays[name], array)
    record = ArrayRecord({name: Array(value) for name, value in figures.arrays.items()})
    return RecordDict({ARRAYS: record, METRICS: MetricRecord({NUM_CASES: figures.num_cases})})


def unpack_figures(kind: str, content: RecordDict) -> Figures:
    """Read a site's figures of a kind.

    Raises:
        UpdateError: names, shapes, types or values are not as declared.
        ValueError: the kind is none of figures alone.
    """
    declared = _declared(kind)
    num_cases = whole_number(NUM_CASES, exactly(content, {ARRAYS, METRICS}, {NUM_CASES})[NUM_CASES])
    arrays = unpack_floats(content, {name: array.shape for name, array in declared.items()})
    try:
        for name, array in declared.items():
            _check(name, arrays[name], array)
    except ValueError as error:
        raise UpdateError(str(error)) from None
    return Figures(kind, num_cases, arrays)


def _declared(kind: str) -> Mapping[str, FigureArray]:
    declared = KINDS[kind].figures
    if declared is None:
        raise ValueError(f"{kind}: is not a kind of figures alone")
    return declared


def _check(name: str, value: NDArray[np.float64], array: FigureArray) -> None:
    if value.dtype != np.float64 or value.shape != array.shape:
        raise ValueError(f"{name}: expected float64 of shape {array.shape}, found {value.dtype} of {value.shape}")
    if not ((value >= array.low) & (value <= array.high)).all():
        raise ValueError(f"{name}: expected values from {array.low:g} to {array.high:g}")
    if array.whole and (value != np.round(value)).any():
        raise ValueError(f"{name}: expected whole numbers")
