"""What of a site's metrics is added up over sites: no more than the plain study's figures of all sites rest on.

Of an estimate, `pooling_sums`; of score bins, the groups on the grid of `score_cells`; of the confusion matrix and of
the moments of a regression, themselves.

Legend: C scored classes, L cells of scores, K classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from msfl_common.config.study import StudyConfig
from msfl_common.errors import UpdateError
from msfl_common.feature_models.settings import num_groups
from msfl_common.messages.validation_metrics import Floats, ValidationMetrics, check_metrics
from msfl_common.metrics.intervals import NUM_POOLED, Estimate, from_pooling_sums, pooling_sums
from msfl_common.metrics.registry import ALL_METRICS, metrics_of
from msfl_common.metrics.regression import NUM_MOMENTS
from msfl_common.metrics.score_bins import CASES
from msfl_common.metrics.score_cells import NUM_CELLS, add_to_cells, bounds_of_cells, groups_of_cells
from msfl_common.metrics.scored import scored_classes
from msfl_common.secure_aggregation.layout import Layout
from msfl_common.secure_aggregation.ring import SUMS, Ring, Words
from msfl_common.system.checked_numbers import MOST_SECONDS, number_within, whole_number

_FEW_EACH = NUM_POOLED  # the place of: sites with fewer patients than an interval of all sites needs at each
_NUM_NUMBERS = NUM_POOLED + 1
_NUM_FIRST = 3  # cases, seconds, and a 1 for each site
_WHOLE = {0: "sites", 1: "cases", 3: "sites that tell their patients", 4: "patients", 5: "sites with an error"}
_WHOLE |= {9: "cases of sites without an error", _FEW_EACH: "sites of few patients"}
_ROUNDING = 1e-9


def metrics_layout(study: StudyConfig) -> Layout[ValidationMetrics]:
    """Metrics of a split of the patients, the same for each; `study` is the stage's."""
    num_classes = num_groups(study.classification) if study.classification else 0
    return _MetricsLayout(metrics_of(study.task, study.inputs.lesion_classes), num_classes, study.min_patients)


@dataclass(frozen=True)
class _MetricsLayout(Layout[ValidationMetrics]):
    names: tuple[str, ...]
    num_classes: int
    min_patients: int
    ring: Ring = SUMS
    seconds_at: ClassVar[int | None] = 1

    @property
    def length(self) -> int:  # type: ignore[override]
        """See `Layout`."""
        num_first = _NUM_FIRST + len(self.names) * _NUM_NUMBERS
        if self._is_numeric:
            return num_first + NUM_MOMENTS
        return num_first + math.prod(self._cells_shape) + self.num_classes**2

    def encode(self, value: ValidationMetrics, num_sites: int) -> Words:
        """See `Layout`."""
        numbers = [float(value.num_cases), value.seconds, 1.0]
        for name in self.names:
            estimate = value.estimates.get(name)
            numbers += [0.0] * _NUM_NUMBERS if estimate is None else _numbers_of(name, estimate, num_sites)
        arrays: list[Floats] = []
        if self._is_numeric:
            assert value.moments is not None
            arrays = [value.moments]
        elif self.num_classes:
            assert value.score_bins is not None
            assert value.confusion is not None
            cells = [add_to_cells(groups_G3) for groups_G3 in value.score_bins]
            arrays = [np.stack(cells).reshape(-1), value.confusion.reshape(-1)]
        return self.ring.encode(np.concatenate([np.array(numbers), *arrays]), num_sites)

    def decode(self, total: Words) -> ValidationMetrics:
        """See `Layout`."""
        values = self.ring.decode(total)
        num_cases, num_sites = whole_number("cases", float(values[0])), whole_number("sites", float(values[2]))
        seconds = number_within("seconds", float(values[1]) / num_sites, 0.0, MOST_SECONDS)
        end = _NUM_FIRST + len(self.names) * _NUM_NUMBERS
        estimates = {}
        for name, numbers in zip(self.names, values[_NUM_FIRST:end].reshape(-1, _NUM_NUMBERS).tolist(), strict=True):
            estimate = _estimate_of(name, numbers)
            if estimate.num_cases:
                estimates[name] = estimate
        moments = values[end:] if self._is_numeric else None
        metrics = ValidationMetrics(estimates, num_cases, seconds, moments=moments)
        check_metrics(metrics, self.min_patients)
        if not self.num_classes or self._is_numeric:
            return metrics
        size = math.prod(self._cells_shape)
        bins_CL3 = self._bins(values[end : end + size].reshape(self._cells_shape), num_cases)
        confusion_KK = values[end + size :].reshape(self.num_classes, self.num_classes)
        if (confusion_KK % 1 != 0).any() or (confusion_KK < 0).any() or confusion_KK.sum() > num_cases:
            raise UpdateError(f"confusion: expected whole numbers that add up to at most {num_cases}")
        return replace(metrics, score_bins=bins_CL3, confusion=confusion_KK)

    @property
    def _is_numeric(self) -> bool:
        return self.num_classes == 1

    @property
    def _cells_shape(self) -> tuple[int, int, int]:
        return len(scored_classes(self.num_classes)) if self.num_classes else 0, NUM_CELLS, 3

    def _bins(self, cells_CL3: Floats, num_cases: int) -> Floats:
        """Score bins as one site's, but for their number and for the cases of sites that withheld theirs."""
        low_L, high_L = bounds_of_cells()
        bins_CL3 = np.zeros_like(cells_CL3)
        for number, cells_L3 in enumerate(cells_CL3):
            scores_L, cases_L, positives_L = cells_L3.T
            if (cells_L3[:, CASES:] % 1 != 0).any() or (positives_L < 0).any() or (positives_L > cases_L).any():
                raise UpdateError("score bins: expected whole numbers, no more positive cases than cases")
            slack_L = _ROUNDING * (1 + cases_L)
            if (scores_L < low_L * cases_L - slack_L).any() or (scores_L > high_L * cases_L + slack_L).any():
                raise UpdateError("score bins: expected scores within their cells")
            if cases_L.sum() > num_cases or (cases_L[cases_L > 0] < self.min_patients).any():
                raise UpdateError(f"score bins: expected {self.min_patients} cases or more, {num_cases} at most in all")
            groups_G3 = groups_of_cells(cells_L3)
            bins_CL3[number, : len(groups_G3)] = groups_G3
        return bins_CL3


def _numbers_of(name: str, estimate: Estimate, num_sites: int) -> tuple[float, ...]:
    metric = ALL_METRICS[name]
    is_few = estimate.num_patients is not None and estimate.num_patients < metric.fewest_each * num_sites
    return (*pooling_sums(estimate, metric.spread), float(is_few))


def _estimate_of(name: str, numbers: list[float]) -> Estimate:
    """A metric of all sites; without an interval where sites are too small for one."""
    for place, what in _WHOLE.items():
        whole_number(f"{name}, {what}", numbers[place], least=0)
    if any(number < 0 for number in numbers[6:]):
        raise UpdateError(f"{name}: expected no variance below 0")
    metric = ALL_METRICS[name]
    pooled = from_pooling_sums(numbers[:NUM_POOLED], metric.spread, metric.interval_range)
    if numbers[_FEW_EACH]:
        return replace(pooled, standard_error=math.nan, ci95_low=math.nan, ci95_high=math.nan)
    return pooled
