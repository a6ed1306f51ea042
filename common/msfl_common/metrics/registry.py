"""Every metric that may be reported, and which a reader of a task looks for first.

A metric is one entry of its task's table, with the function that measures it: `segmentation.METRICS`,
`new_lesions.NEW_LESION_METRICS`, `classification.CLASSIFICATION_METRICS` or `regression.REGRESSION_METRICS`. From there
come validation at the sites, the bounds of what they may send, summary, report, MLflow and cross-validation, and, of
those of a confusion matrix that say so, the figures of small cohorts' pipelines.
To add one: docs/how-to/add-a-metric.md.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Collection, Mapping, Sequence
from typing import cast

from msfl_common.metrics.classification import CLASSIFICATION_METRICS
from msfl_common.metrics.lesion_classes import CLASS_METRICS
from msfl_common.metrics.metric import LesionClass, Metric, Task
from msfl_common.metrics.new_lesions import NEW_LESION_METRICS, NEW_LESION_NATIVE_METRICS
from msfl_common.metrics.regression import REGRESSION_METRICS
from msfl_common.metrics.segmentation import METRICS, NATIVE_METRICS, SegmentationMetric
from msfl_common.metrics.strata import strata_of

# Figures of groups of patients, told once, where a site's groups are large enough: no site is expected to.
STRATA: dict[str, Metric] = {
    **strata_of("lesion-segmentation", METRICS),
    **strata_of("classification", CLASSIFICATION_METRICS),
}

# What is measured of each case whose lesions are outlined; a study of an outcome may begin with a model of lesions.
CASE_METRICS: dict[Task, dict[str, SegmentationMetric]] = {
    "lesion-segmentation": METRICS,
    "new-lesions": NEW_LESION_METRICS,
    "classification": METRICS,
    "regression": METRICS,
}

TASK_METRICS: dict[Task, Mapping[str, Metric]] = {
    "lesion-segmentation": ChainMap[str, Metric](
        strata_of("lesion-segmentation", METRICS),
        cast(dict[str, Metric], NATIVE_METRICS),
        cast(dict[str, Metric], METRICS),
    ),
    "new-lesions": ChainMap[str, Metric](
        cast(dict[str, Metric], NEW_LESION_NATIVE_METRICS), cast(dict[str, Metric], NEW_LESION_METRICS)
    ),
    "classification": ChainMap[str, Metric](
        strata_of("classification", CLASSIFICATION_METRICS), cast(dict[str, Metric], CLASSIFICATION_METRICS)
    ),
    "regression": cast(dict[str, Metric], REGRESSION_METRICS),
}

# Of all tasks, in their order, and of classes of lesions: a chain's last mapping comes first.
ALL_METRICS: Mapping[str, Metric] = ChainMap[str, Metric](
    *(cast(dict[str, Metric], metrics) for metrics in reversed([*TASK_METRICS.values(), *CLASS_METRICS.values()]))
)

# A good Dice can hide poor detection, and a good AUROC poor probabilities; so each task has more than one.
HEADLINE: dict[Task, dict[str, str]] = {
    task: {name: metric.headline for name, metric in metrics.items() if metric.headline}
    for task, metrics in TASK_METRICS.items()
}
"""Names and short titles."""


def metrics_of(task: Task, classes: Sequence[LesionClass] = ()) -> tuple[str, ...]:
    """Names of all that may be measured in a study: of its task, and of the classes of lesions that it tells apart."""
    return (*TASK_METRICS[task], *(name for one in classes for name in CLASS_METRICS[one]))


def class_metrics_in(names: Collection[str]) -> list[str]:
    """The metrics of each class of lesions of which any is among these."""
    return [name for metrics in CLASS_METRICS.values() if not metrics.keys().isdisjoint(names) for name in metrics]


def possible_range(name: str) -> tuple[float, float]:
    """The smallest and the largest value that a metric in `ALL_METRICS` can have in any case of a person."""
    return ALL_METRICS[name].possible_range
