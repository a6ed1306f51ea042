"""Every metric that may be reported, and which a reader of a task looks for first."""

from __future__ import annotations

import math

from msfl_common.config.base import Task
from msfl_common.metrics.classification import CLASSIFICATION_METRICS
from msfl_common.metrics.segmentation import METRICS, Metric

ALL_METRICS: dict[str, Metric] = METRICS | CLASSIFICATION_METRICS

TASK_METRICS: dict[Task, dict[str, Metric]] = {
    "lesion-segmentation": METRICS,
    "classification": CLASSIFICATION_METRICS,
}

# A good Dice can hide poor detection, and a good AUROC poor probabilities; so each task has more than one.
HEADLINE: dict[Task, dict[str, str]] = {
    "lesion-segmentation": {"dsc": "DSC", "lesion_f1": "lesion F1"},
    "classification": {"auroc": "AUROC", "auprc": "AUPRC", "brier": "Brier"},
}
"""Names and short titles."""

# What a metric without an end of its own can still not go beyond: a head is no larger, and logits are of probabilities
# held within 1e-6 of 0 and 1.
_BEYOND = {"abs_volume_difference_ml": 20_000.0, "hd95_mm": 1000.0}
_FURTHEST = 1e6


def possible_range(name: str) -> tuple[float, float]:
    """The smallest and the largest value that a metric in `ALL_METRICS` can have in any case of a person."""
    metric = ALL_METRICS[name]
    furthest = _BEYOND.get(name, _FURTHEST)
    return (
        metric.lower if math.isfinite(metric.lower) else -furthest,
        metric.upper if math.isfinite(metric.upper) else furthest,
    )
