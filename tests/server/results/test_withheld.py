"""Which metrics the sites did not tell."""

from __future__ import annotations

from msfl_common.messages.validation_metrics import ValidationMetrics
from msfl_common.metrics.intervals import Estimate
from msfl_common.metrics.segmentation import METRICS, NATIVE_METRICS
from msfl_server.results.withheld import withheld_metrics

ONE = Estimate(0.5, 5, 0.1, 0.3, 0.7)


def told(*names: str) -> ValidationMetrics:
    return ValidationMetrics(dict.fromkeys(names, ONE), 5, 1.0)


def test_metrics_on_own_grids_are_missed_only_once_a_site_tells_one() -> None:
    before_the_last = {"a": told(*METRICS), "b": told(*(name for name in METRICS if name != "ppv"))}
    assert withheld_metrics("lesion-segmentation", before_the_last) == {"ppv": ("b",)}
    last = {"a": told(*METRICS, *NATIVE_METRICS), "b": told(*METRICS)}
    assert withheld_metrics("lesion-segmentation", last) == dict.fromkeys(NATIVE_METRICS, ("b",))
