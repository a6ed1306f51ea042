"""Every metric that may be reported, and which a reader of a task looks for first."""

from __future__ import annotations

from msfl_common.classification_metrics import CLASSIFICATION_METRICS
from msfl_common.config import Task
from msfl_common.metrics import METRICS, Metric

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
