"""The messages of a harmonization: sums of a site, slopes and reference of the coordinator.

Legend: Q columns of the covariates, P features.
"""

from __future__ import annotations

from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict

from msfl_common.config.message_kinds import REFERENCE
from msfl_common.errors import ConfigError, UpdateError
from msfl_common.harmonization import Floats, Moments, Reference, Residuals
from msfl_common.messages.arrays import ARRAYS, unpack_floats
from msfl_common.messages.records import (
    METRICS,
    NUM_CASES,
    NUM_SCANNERS,
    SLOPES,
    TASK,
    RoundTask,
    exactly,
    pack_task,
)
from msfl_common.messages.validation_metrics import ValidationMetrics as ValidationMetrics
from msfl_common.system.checked_arrays import check_scatter
from msfl_common.system.checked_numbers import whole_number
from msfl_common.system.reading import MOST_SETTINGS, parse_record


def pack_slopes_task(task: RoundTask, slopes_QP: Floats) -> RecordDict:
    """The coordinator's request for the second sums of a harmonization."""
    return RecordDict({**pack_task(task), ARRAYS: ArrayRecord({SLOPES: Array(slopes_QP)})})


def unpack_slopes(content: RecordDict, shape: tuple[int, int]) -> Floats:
    """The slopes of a request, Q x P.

    Raises:
        UpdateError: they are not as declared.
    """
    return unpack_floats(content, {SLOPES: shape})[SLOPES]


def pack_reference_task(task: RoundTask, reference: Reference) -> RecordDict:
    """The coordinator hands out the reference of a harmonization; a site answers with its facts."""
    content = pack_task(task)
    content.config_records[TASK][REFERENCE] = reference.model_dump_json()
    return content


def unpack_reference(content: RecordDict) -> Reference:
    """The reference in a request.

    Raises:
        UpdateError: there is none, or it does not validate.
    """
    try:
        return parse_record(Reference, str(content.config_records[TASK].get(REFERENCE)), REFERENCE, MOST_SETTINGS)
    except ConfigError as error:
        raise UpdateError(f"expected the reference of a harmonization: {error}") from None


def pack_sums(sums: Moments | Residuals) -> RecordDict:
    """Sums of a harmonization: arrays, and the number of cases and, with the first, of scanners."""
    numbers = {NUM_CASES: sums.num_cases}
    if isinstance(sums, Moments):
        numbers[NUM_SCANNERS] = sums.num_scanners
    record = ArrayRecord({name: Array(value) for name, value in sums.arrays.items()})
    return RecordDict({ARRAYS: record, METRICS: MetricRecord({**numbers})})


def unpack_moments(content: RecordDict, num_columns: int, num_features: int) -> Moments:
    """Read a site's first sums.

    Raises:
        UpdateError: names, shapes, types or values are not as declared.
    """
    numbers = exactly(content, {ARRAYS, METRICS}, {NUM_CASES, NUM_SCANNERS})
    num_cases = whole_number(NUM_CASES, numbers[NUM_CASES])
    num_scanners = whole_number(NUM_SCANNERS, numbers[NUM_SCANNERS], most=num_cases)
    shapes = {"covariance": (num_columns, num_columns), "cross": (num_columns, num_features)}
    arrays = unpack_floats(content, shapes)
    check_scatter("covariance", arrays["covariance"])
    return Moments(num_cases, num_scanners, arrays["covariance"], arrays["cross"])


def unpack_residuals(content: RecordDict, num_features: int) -> Residuals:
    """Read a site's second sums.

    Raises:
        UpdateError: names, shapes, types or values are not as declared.
    """
    num_cases = whole_number(NUM_CASES, exactly(content, {ARRAYS, METRICS}, {NUM_CASES})[NUM_CASES])
    arrays = unpack_floats(content, {"intercepts": (num_features,), "squares": (num_features,)})
    if (arrays["squares"] < 0).any():
        raise UpdateError("squares: expected no negative sum of squares")
    return Residuals(num_cases, arrays["intercepts"], arrays["squares"])
