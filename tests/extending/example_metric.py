"""Two metrics: one of a segmented case, one of a confusion matrix; docs/how-to/add-a-metric.md shows them from here."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from msfl_common.metrics.classification import ClassificationMetric
from msfl_common.metrics.scored import Confusion, ratio
from msfl_common.metrics.segmentation import MaskPair, SegmentationMetric, label_lesions


# --8<-- [start:segmentation]
# common/msfl_common/metrics/segmentation.py: the function, and an entry in METRICS
def lesion_count_difference(pair: MaskPair) -> float:
    """How many lesions too many or too few."""
    counts = [label_lesions(mask, pair.spacing_mm)[1] for mask in (pair.prediction_DHW, pair.truth_DHW)]
    return float(abs(counts[0] - counts[1]))


METRICS = {
    "lesion_count_difference": SegmentationMetric(
        title="Lesions too many or too few",
        unit="lesions",
        higher_is_better=False,
        lower=0.0,
        upper=float("inf"),
        furthest=10_000.0,
        measure=lesion_count_difference,
    ),
}
# --8<-- [end:segmentation]


# --8<-- [start:classification]
# common/msfl_common/metrics/classification.py: the function, and an entry in CLASSIFICATION_METRICS
def matthews(confusion: Confusion) -> NDArray[np.float64]:
    """Matthews' correlation of true and predicted classes; of more than two, Gorodkin's."""
    true_KR, predicted_KR, total_R = confusion.true, confusion.predicted, confusion.total
    covariance_R = confusion.right.sum(axis=0) * total_R - (true_KR * predicted_KR).sum(axis=0)
    spread_R = (total_R**2 - (true_KR**2).sum(axis=0)) * (total_R**2 - (predicted_KR**2).sum(axis=0))
    return ratio(covariance_R, np.sqrt(spread_R))


CLASSIFICATION_METRICS = {
    "mcc": ClassificationMetric(
        title="Matthews correlation",
        unit="",
        higher_is_better=True,
        lower=-1.0,
        upper=1.0,
        of_confusion=matthews,
        in_pipelines=True,
    ),
}
# --8<-- [end:classification]
