"""How well a predicted lesion mask agrees with a manual one, voxel-wise, lesion-wise and at the surface.

Legend: D, H, W voxels of the grid; K lesions; S surface voxels.

Each is measured twice: on the study's grid, which the network sees, and under the name with `_native` on the grid on
which the patient's manual mask was drawn, with the mask untouched and the probability brought there as `predict` does.
The native ones are those to compare with published figures.

Volumes, distances and the smallest lesion are physical (mm), so anisotropic grids are measured right. The
definitions follow Metrics Reloaded (Maier-Hein et al., Nature Methods 2024) and, for lesions, the ISBI 2015
challenge (Carass et al., NeuroImage 2017).

Empty masks:

| | both empty | only the ground truth empty | only the prediction empty |
|---|---|---|---|
| dsc, surface_dice | 1 | 0 | 0 |
| lesion_f1 (of lesions, not voxels) | 1 | 0 | 0 |
| ppv, lesion_fpr (shares of what is predicted) | NaN | defined | NaN |
| tpr, lesion_tpr (shares of the ground truth) | NaN | NaN | defined |
| abs_volume_difference_ml | 0 | defined | defined |
| hd95_mm | 0 | NaN | NaN |

NaN means undefined: such a case is left out of that metric's mean and of its case count
(`msfl_common.metrics.intervals`). A missed case therefore does not show in `hd95_mm`; it shows as a `dsc` of 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from msfl_common.metrics.metric import Metric

MIN_LESION_MM3 = 3.0
SURFACE_TOLERANCE_MM = 1.0
STUDYS_GRID = ", study's grid"

Mask = NDArray[np.bool_]
Spacing = tuple[float, float, float]

# Voxels that share a face, an edge or a corner belong to one lesion.
_NEIGHBOURS_26 = np.ones((3, 3, 3), dtype=bool)


@dataclass(frozen=True)
class MaskPair:
    """A predicted and a manual mask of one case, and what several metrics need of them, computed once.

    Attributes:
        prediction_DHW: the predicted lesion mask.
        truth_DHW: the manual one, on the same grid.
        spacing_mm: voxel size along D, H and W.
        found: see `once`.
    """

    prediction_DHW: Mask
    truth_DHW: Mask
    spacing_mm: Spacing
    found: dict[Callable[[MaskPair], dict[str, float]], dict[str, float]] = field(default_factory=dict)

    @cached_property
    def num_predicted(self) -> int:
        """Voxels of the prediction."""
        return int(np.count_nonzero(self.prediction_DHW))

    @cached_property
    def num_truth(self) -> int:
        """Voxels of the manual mask."""
        return int(np.count_nonzero(self.truth_DHW))

    @cached_property
    def num_both(self) -> int:
        """Voxels in both."""
        return int(np.count_nonzero(self.prediction_DHW & self.truth_DHW))

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel."""
        return math.prod(self.spacing_mm) / 1000.0

    @cached_property
    def lesions(self) -> dict[str, float]:
        """See `lesion_scores`."""
        return lesion_scores(self.prediction_DHW, self.truth_DHW, self.spacing_mm)

    @cached_property
    def surface(self) -> dict[str, float]:
        """See `surface_scores`."""
        return surface_scores(self.prediction_DHW, self.truth_DHW, self.spacing_mm)

    def once(self, scores: Callable[[MaskPair], dict[str, float]]) -> dict[str, float]:
        """What another module's function finds of the pair, computed once."""
        if scores not in self.found:
            self.found[scores] = scores(self)
        return self.found[scores]


@dataclass(frozen=True, kw_only=True)
class SegmentationMetric(Metric):
    """A metric of one case, whose mean over cases is reported.

    Attributes:
        measure: its value of a case; NaN where undefined.
    """

    measure: Callable[[MaskPair], float]


def _metric(
    title: str, unit: str, higher_is_better: bool, upper: float, measure: Callable[[MaskPair], float], **more: Any
) -> SegmentationMetric:
    return SegmentationMetric(
        title=title + STUDYS_GRID,
        unit=unit,
        higher_is_better=higher_is_better,
        lower=0.0,
        upper=upper,
        measure=measure,
        **{"fewest": 5, **more},
    )


# With tp, fp and fn the numbers of voxels in both masks, only predicted and only in the ground truth.
METRICS: dict[str, SegmentationMetric] = {
    "dsc": _metric(  # 2 tp / (2 tp + fp + fn)
        "Dice similarity",
        "",
        True,
        1.0,
        lambda pair: _share(2 * pair.num_both, pair.num_predicted + pair.num_truth, empty=1.0),
        headline="DSC",
    ),
    "ppv": _metric(
        "Voxel precision (PPV)",
        "",
        True,
        1.0,
        lambda pair: _share(pair.num_both, pair.num_predicted),
        of_what_is_found=True,
    ),
    "tpr": _metric("Voxel sensitivity (TPR)", "", True, 1.0, lambda pair: _share(pair.num_both, pair.num_truth)),
    "lesion_tpr": _metric("Lesions found (lesion TPR)", "", True, 1.0, lambda pair: pair.lesions["lesion_tpr"]),
    "lesion_fpr": _metric(
        "False lesions (lesion FPR)", "", False, 1.0, lambda pair: pair.lesions["lesion_fpr"], of_what_is_found=True
    ),
    "lesion_f1": _metric("Lesion F1", "", True, 1.0, lambda pair: pair.lesions["lesion_f1"], headline="lesion F1"),
    "abs_volume_difference_ml": _metric(
        "Absolute volume difference",
        "ml",
        False,
        math.inf,
        lambda pair: abs(pair.num_predicted - pair.num_truth) * pair.voxel_ml,
        furthest=20_000.0,  # a head is no larger
        fewest=100,  # so skewed that an interval of fewer holds the truth in 88 to 92 of 100
    ),
    "hd95_mm": _metric(
        "95% Hausdorff distance",
        "mm",
        False,
        math.inf,
        lambda pair: pair.surface["hd95_mm"],
        furthest=1000.0,
        fewest=50,  # as above
        of_what_is_found=True,
    ),
    "surface_dice": _metric("Surface Dice at 1 mm", "", True, 1.0, lambda pair: pair.surface["surface_dice"]),
}


NATIVE = "_native"


def on_own_grid(metric: SegmentationMetric, headline: str = "") -> SegmentationMetric:
    """A metric on the patient's own grid."""
    return replace(metric, title=f"{metric.title.removesuffix(STUDYS_GRID)}, own grid", headline=headline)


NATIVE_METRICS: dict[str, SegmentationMetric] = {
    f"{name}{NATIVE}": on_own_grid(metric, "own-grid DSC" if name == "dsc" else "") for name, metric in METRICS.items()
}


def is_native(name: str) -> bool:
    """Whether a metric is one on the patients' own grids."""
    return name.endswith(NATIVE)


def segmentation_metrics(
    prediction_DHW: Mask, truth_DHW: Mask, spacing_mm: Spacing, metrics: Mapping[str, SegmentationMetric] = METRICS
) -> dict[str, float]:
    """Measure one case.

    Args:
        prediction_DHW: the predicted lesion mask, boolean.
        truth_DHW: the manual lesion mask, boolean, on the same grid.
        spacing_mm: voxel size along D, H and W, mm, each positive.
        metrics: those of the study's task (`registry.CASE_METRICS`).

    Returns:
        One value for each name in `metrics`, in that order; NaN where undefined (see the top of this file).

    Raises:
        ValueError: a mask is not boolean or not 3D, the shapes differ, or a spacing is not positive.
    """
    _check(prediction_DHW, truth_DHW, spacing_mm)
    box = _union_box(prediction_DHW, truth_DHW)
    # Background around the union changes no metric, and most of a brain is background.
    pair = MaskPair(prediction_DHW[box], truth_DHW[box], spacing_mm)
    return {name: metric.measure(pair) for name, metric in metrics.items()}


def label_lesions(mask_DHW: Mask, spacing_mm: Spacing) -> tuple[NDArray[np.int32], int]:
    """Number the lesions of a mask: 26-connected components of at least 3 mm3; the rest is background.

    Returns:
        labels_DHW with 0 for background and 1..K for lesions, and K.
    """
    labels_DHW, num_components = ndimage.label(mask_DHW, structure=_NEIGHBOURS_26)
    sizes = np.bincount(labels_DHW.ravel(), minlength=num_components + 1)
    # The small slack keeps three voxels of 1 mm3 whose spacing is 0.9999999.
    keep = sizes * math.prod(spacing_mm) >= MIN_LESION_MM3 - 1e-4
    keep[0] = False
    new_label = np.where(keep, np.cumsum(keep), 0).astype(np.int32)
    return new_label[labels_DHW], int(keep.sum())


def lesion_scores(prediction_DHW: Mask, truth_DHW: Mask, spacing_mm: Spacing) -> dict[str, float]:
    """Count lesions found and lesions made up.

    Two lesions match when they share at least one voxel; one may match several. Lesions are those of
    `label_lesions`, so a component below 3 mm3 is neither a lesion to find nor a false one, and a predicted
    lesion that touches only such a component is false.

    Returns:
        - lesion_tpr: share of ground truth lesions that touch a predicted lesion
        - lesion_fpr: share of predicted lesions that touch no ground truth lesion (LFPR of ISBI 2015; a false
          discovery rate, not a rate over true negatives)
        - lesion_f1: harmonic mean of lesion_tpr and 1 - lesion_fpr; 1 when neither mask holds a lesion, 0
          when one holds none or none match
    """
    predicted_DHW, num_predicted = label_lesions(prediction_DHW, spacing_mm)
    truth_labels_DHW, num_truth = label_lesions(truth_DHW, spacing_mm)
    shared_DHW = (predicted_DHW > 0) & (truth_labels_DHW > 0)
    num_matched_predicted = np.unique(predicted_DHW[shared_DHW]).size
    num_matched_truth = np.unique(truth_labels_DHW[shared_DHW]).size
    sensitivity = _share(num_matched_truth, num_truth)
    precision = _share(num_matched_predicted, num_predicted)
    if num_matched_predicted:
        f1 = 2 * sensitivity * precision / (sensitivity + precision)
    else:
        f1 = 1.0 if num_predicted == num_truth == 0 else 0.0
    return {"lesion_tpr": sensitivity, "lesion_fpr": 1.0 - precision, "lesion_f1": f1}


def surface_scores(prediction_DHW: Mask, truth_DHW: Mask, spacing_mm: Spacing) -> dict[str, float]:
    """Measure how far the two surfaces lie from each other.

    A surface voxel is a mask voxel with a face neighbour outside the mask (outside the grid counts as outside
    the mask). Each has a distance, centre to centre in mm, to the nearest surface voxel of the other mask.

    Returns:
        - hd95_mm: the larger of the two directed 95th percentiles (linear interpolation), as in MONAI
        - surface_dice: share of all surface voxels, of both masks, that lie within 1 mm of the other surface
          (Nikolov et al., J Med Internet Res 2021, with voxels for surface elements as in MONAI). On a grid
          coarser than 1 mm only coinciding surface voxels count, so compare it at one spacing only.
    """
    has_prediction, has_truth = bool(prediction_DHW.any()), bool(truth_DHW.any())
    if not (has_prediction and has_truth):
        both_empty = has_prediction == has_truth
        return {"hd95_mm": 0.0 if both_empty else math.nan, "surface_dice": 1.0 if both_empty else 0.0}
    prediction_surface_DHW = _surface(prediction_DHW)
    truth_surface_DHW = _surface(truth_DHW)
    # A distance transform takes the same time whatever the masks look like; k-d trees of lattice points do not.
    from_prediction_S = _distance_mm(truth_surface_DHW, spacing_mm)[prediction_surface_DHW]
    from_truth_S = _distance_mm(prediction_surface_DHW, spacing_mm)[truth_surface_DHW]
    distances_S = np.concatenate([from_prediction_S, from_truth_S])
    hd95 = max(np.percentile(from_prediction_S, 95), np.percentile(from_truth_S, 95))
    near = np.count_nonzero(distances_S <= SURFACE_TOLERANCE_MM + 1e-6)
    return {"hd95_mm": float(hd95), "surface_dice": near / distances_S.size}


def _surface(mask_DHW: Mask) -> Mask:
    """Voxels with a face neighbour outside the mask."""
    edge_DHW: Mask = mask_DHW & ~ndimage.binary_erosion(mask_DHW)
    return edge_DHW


def _distance_mm(mask_DHW: Mask, spacing_mm: Spacing) -> NDArray[np.float64]:
    """Distance of each voxel's centre to the nearest centre in the mask."""
    distance_DHW: NDArray[np.float64] = ndimage.distance_transform_edt(~mask_DHW, sampling=spacing_mm)
    return distance_DHW


def _union_box(first_DHW: Mask, second_DHW: Mask) -> tuple[slice, ...]:
    """The smallest box that holds both masks; empty when they are."""
    union_DHW = first_DHW | second_DHW
    box = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        filled = np.flatnonzero(union_DHW.any(axis=others))
        box.append(slice(filled[0], filled[-1] + 1) if filled.size else slice(0, 0))
    return tuple(box)


def _share(part: float, whole: float, *, empty: float = math.nan) -> float:
    return part / whole if whole else empty


def _check(prediction_DHW: Mask, truth_DHW: Mask, spacing_mm: Spacing) -> None:
    for name, mask in (("prediction", prediction_DHW), ("ground truth", truth_DHW)):
        if mask.dtype != np.bool_ or mask.ndim != 3:
            raise ValueError(f"{name}: expected a boolean 3D mask, found {mask.dtype} of shape {mask.shape}")
    if prediction_DHW.shape != truth_DHW.shape:
        raise ValueError(
            f"expected masks on one grid, found {prediction_DHW.shape} and {truth_DHW.shape}; "
            "resample the prediction to the ground truth"
        )
    if len(spacing_mm) != 3 or not all(math.isfinite(size) and size > 0 for size in spacing_mm):
        raise ValueError(f"spacing_mm: expected three positive sizes, found {spacing_mm}")
