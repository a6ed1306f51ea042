"""What two runs differ in: settings, and figures of the same patients.

A difference has the interval that follows from those of the two figures as if other patients had been behind each
(Newcombe's hybrid score, Stat Med 1998; of any two intervals: Zou and Donner, Stat Med 2008). The same patients are
behind both, whom models find easy or hard alike as a rule: then the interval is too wide. A paired one would need each
patient's values, which leave no site.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from msfl_common.errors import InputError
from msfl_common.metrics.registry import ALL_METRICS
from msfl_server.research.comparison.measured import MeasuredRun, Value

BASIS = "independent"
_LARGEST = sys.float_info.max  # figures of a hostile site can be further apart
# Settings that decide who is tested, or on what: other ones, and figures are of something else.
_DECIDE = {
    "task": "tasks",
    "classification.outcome": "endpoints",
    "inputs.spacing_mm": "grids",
    "seed": "test patients",
    "validation.fraction": "test patients",
    "validation.test_fraction": "test patients",
    "validation.min_test_patients": "test patients",
    "validation.fold": "test patients",
    "classification.test_fraction": "test patients",
    "classification.fold": "test patients",
}


@dataclass(frozen=True)
class Difference:
    """A metric in both runs, and what the second has more: None where it is not of the same cases in both."""

    first: Value
    second: Value
    difference: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Comparison:
    """Two runs of the same patients.

    Attributes:
        settings: dotted key to its value in each run, of those that differ; None where a run has no such setting.
        overall: each metric that both have.
        parts: the same of each site, or of each fold.
        missing: metrics that one run alone has.
    """

    settings: Mapping[str, tuple[Any, Any]]
    overall: Mapping[str, Difference]
    parts: Mapping[str, Mapping[str, Difference]]
    missing: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """The same for programs."""
        return {"basis": BASIS, **asdict(self)}


def compare(first: MeasuredRun, second: MeasuredRun) -> Comparison:
    """The differences of the second run from the first.

    Raises:
        InputError: their figures are not of the same thing: each reason is named.
    """
    if reasons := list(_incomparable(first, second)):
        raise InputError(f"{first.folder} and {second.folder} cannot be compared: {'; '.join(reasons)}")
    one, other = _flat(first.study.model_dump(mode="json")), _flat(second.study.model_dump(mode="json"))
    settings = {
        key: (one.get(key), other.get(key))
        for key in dict.fromkeys((*one, *other))
        if one.get(key) != other.get(key) and key != "name"
    }
    both = [name for name in ALL_METRICS if name in first.overall and name in second.overall]
    return Comparison(
        settings=settings,
        overall={name: difference(first.overall[name], second.overall[name]) for name in both},
        parts={
            part: {
                name: difference(values[name], second.parts[part][name])
                for name in both
                if name in values and name in second.parts[part]
            }
            for part, values in first.parts.items()
        },
        missing=tuple(name for name in ALL_METRICS if (name in first.overall) != (name in second.overall)),
    )


def difference(first: Value, second: Value) -> Difference:
    """Second less first, with the interval of the top of this module; none where either has none or none holds it.

    Nor is there a difference where a site withheld one of the two, or a metric is undefined in other patients: it would
    be one of patients.

    >>> one = difference(Value(0.5, 0.4, 0.6, 10), Value(0.7, 0.6, 0.8, 10))
    >>> round(one.difference, 3), round(one.low, 3), round(one.high, 3)
    (0.2, 0.059, 0.341)
    """
    if first.num_cases != second.num_cases:
        return Difference(first, second, None, None, None)
    found = max(-_LARGEST, min(_LARGEST, second.mean - first.mean))
    if first.low is None or first.high is None or second.low is None or second.high is None:
        return Difference(first, second, found, None, None)
    low = found - math.hypot(second.mean - second.low, first.high - first.mean)
    high = found + math.hypot(second.high - second.mean, first.mean - first.low)
    if not (math.isfinite(low) and math.isfinite(high)):
        return Difference(first, second, found, None, None)
    return Difference(first, second, found, low, high)


def _incomparable(first: MeasuredRun, second: MeasuredRun) -> Iterator[str]:
    """Why the figures of two runs are of different things."""
    if first.kind != second.kind:
        yield f"one is a {first.kind}, the other a {second.kind}"
        return
    if first.split != second.split:
        yield f"one's figures are of {first.split} patients, the other's of {second.split} patients"
        return
    for key, what in _DECIDE.items():
        if key == "inputs.spacing_mm" and first.study.classification is not None:
            continue  # features are measured on it, but the outcome is the patient's
        one, other = (_at(run.study.model_dump(mode="json"), key) for run in (first, second))
        if one != other:
            yield f"other {what} ({key}: {one} and {other})"
    if bool(first.parts) != bool(second.parts) and first.kind == "run":
        yield "of one each site's figures are known, of the other, a sum under masks, those of all sites together alone"
        return
    if set(first.parts) != set(second.parts):
        names = (", ".join(sorted(run.parts)) or "none" for run in (first, second))
        yield f"other {'sites' if first.kind == 'run' else 'folds'} were measured ({' and '.join(names)})"
        return
    if first.data is not None and second.data is not None:
        moved = sorted(site for site in first.data if second.data.get(site) != first.data[site])
        if moved:
            yield f"other test patients (the data of {', '.join(moved)} lie in other folders)"
    for part in first.parts:
        counts = [max((value.num_cases for value in run.parts[part].values()), default=0) for run in (first, second)]
        if counts[0] != counts[1]:
            yield f"other test patients ({part}: {counts[0]} and {counts[1]} cases)"


def _at(content: Any, key: str) -> Any:
    for name in key.split("."):
        content = content.get(name) if isinstance(content, dict) else None
    return content


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in content.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found
