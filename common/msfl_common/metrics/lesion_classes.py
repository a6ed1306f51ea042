"""How well classes of lesions are told apart: metrics of a segmentation, of the voxels of one class by themselves.

They are measured on the study's grid, beside those of all lesions, which do not look at classes. A lesion of the right
place and the wrong class counts as missed in one class and as false in the other.

Legend: D/H/W voxels of the grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from msfl_common.metrics.metric import LESION_CLASSES, LesionClass
from msfl_common.metrics.segmentation import METRICS, STUDYS_GRID, SegmentationMetric, Spacing, segmentation_metrics

_OF_A_CLASS = ("dsc", "ppv", "tpr", "lesion_tpr", "lesion_fpr", "lesion_f1", "abs_volume_difference_ml")


def name_of(metric: str, one: LesionClass) -> str:
    """The name of a metric of a class: dsc_black_hole."""
    return f"{metric}_{one.replace('-', '_')}"


def _of_class(metric: SegmentationMetric, one: LesionClass) -> SegmentationMetric:
    title = f"{metric.title.removesuffix(STUDYS_GRID)}, {LESION_CLASSES[one]}{STUDYS_GRID}"
    return replace(metric, title=title, headline="")


CLASS_METRICS: dict[LesionClass, dict[str, SegmentationMetric]] = {
    one: {name_of(name, one): _of_class(METRICS[name], one) for name in _OF_A_CLASS} for one in LESION_CLASSES
}
"""Of each class, by name."""
ALL_LESIONS: dict[str, str] = {name_of(name, one): name for one in LESION_CLASSES for name in _OF_A_CLASS}
"""By metric of a class, that of all lesions."""


def metrics_of_classes(
    predicted_DHW: NDArray[np.uint8], truth_DHW: NDArray[np.uint8], spacing_mm: Spacing, classes: Sequence[LesionClass]
) -> dict[str, float]:
    """Measure each class of one case; NaN where undefined, as in `segmentation`.

    Args:
        predicted_DHW: 0, or the number of a class from 1 on.
        truth_DHW: the same of the manual mask, on the same grid.
        spacing_mm: voxel size along D, H and W.
        classes: in the order of their numbers.
    """
    measured: dict[str, float] = {}
    for number, one in enumerate(classes, start=1):
        masks = predicted_DHW == number, truth_DHW == number
        measured |= segmentation_metrics(*masks, spacing_mm, CLASS_METRICS[one])
    return measured
