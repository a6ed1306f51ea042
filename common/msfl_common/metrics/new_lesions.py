"""How well a predicted mask of new lesions agrees with a manual one, as the challenge MSSEG-2 measured it.

Patients with new lesions and patients without are measured apart (Commowick et al., MSSEG-2 challenge proceedings,
MICCAI 2021): of those with some, which were found, and how well they were outlined; of those without, how many lesions
were made up, and of what volume.

Lesions and their matching are those of the challenge's tool, animaSegPerfAnalyzer, with its thresholds (Commowick et
al., Scientific Reports 2018;8:13650): components of voxels that share a face, of more than 3 mm3. A lesion of one mask
is found in the other when that covers more than a tenth of it, and the lesions there that cover most of it, together at
least 65% of what is covered, each lie outside of this mask by at most 70% of their volume. The ground truth's lesions
are looked for in the prediction for the sensitivity, the predicted ones in the ground truth for the precision.

| | new lesions, some predicted | new lesions, nothing predicted | no new lesions |
|---|---|---|---|
| new_lesion_f1, new_lesion_tpr, new_lesion_dsc | defined | 0 | NaN |
| new_lesion_ppv | defined | NaN | NaN |
| false_new_lesions, false_new_lesion_ml | NaN | NaN | defined, 0 of nothing predicted |

NaN means undefined, as in `segmentation`. A ground truth of nothing but specks of 3 mm3 and less is in no metric of
lesions. Legend: D, H, W voxels of the grid; I lesions of one mask, J of the other.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from msfl_common.metrics.segmentation import (
    MIN_LESION_MM3,
    NATIVE,
    STUDYS_GRID,
    Mask,
    MaskPair,
    SegmentationMetric,
    Spacing,
    on_own_grid,
)

LEAST_COVERED, MOST_OUTSIDE, LEAST_WEIGHED = 0.10, 0.70, 0.65
"""alpha, beta and gamma of animaSegPerfAnalyzer."""


def new_lesion_scores(pair: MaskPair) -> dict[str, float]:
    """Measure one patient's new lesions; one value for each key of `NEW_LESION_METRICS`.

    Args:
        pair: the predicted and the manual mask of new lesions, on one grid.
    """
    nan = math.nan
    undefined = dict.fromkeys(NEW_LESION_METRICS, nan)
    predicted_DHW, num_predicted = face_connected(pair.prediction_DHW, pair.spacing_mm)
    truth_DHW, num_truth = face_connected(pair.truth_DHW, pair.spacing_mm)
    if not pair.num_truth:
        volume_ml = float(np.count_nonzero(predicted_DHW)) * pair.voxel_ml
        return undefined | {"false_new_lesions": float(num_predicted), "false_new_lesion_ml": volume_ml}
    dsc = 2 * pair.num_both / (pair.num_predicted + pair.num_truth)
    if not num_truth:
        return undefined | {"new_lesion_dsc": dsc}
    shared_IJ = np.zeros((num_truth + 1, num_predicted + 1), dtype=np.int64)
    np.add.at(shared_IJ, (truth_DHW.ravel(), predicted_DHW.ravel()), 1)
    sensitivity = num_found(shared_IJ) / num_truth
    precision = num_found(shared_IJ.T) / num_predicted if num_predicted else nan
    found = sensitivity * precision > 0
    return undefined | {
        "new_lesion_f1": 2 * sensitivity * precision / (sensitivity + precision) if found else 0.0,
        "new_lesion_tpr": sensitivity,
        "new_lesion_ppv": precision,
        "new_lesion_dsc": dsc,
    }


def face_connected(mask_DHW: Mask, spacing_mm: Spacing) -> tuple[NDArray[np.int64], int]:
    """Number the lesions of a mask, components of voxels that share a face, of more than 3 mm3; the rest is background.

    Returns:
        labels_DHW with 0 for background and 1..K for lesions, and K.
    """
    labels_DHW, num_components = ndimage.label(mask_DHW)
    sizes = np.bincount(labels_DHW.ravel(), minlength=num_components + 1)
    keep = sizes * math.prod(spacing_mm) > MIN_LESION_MM3 + 1e-4
    keep[0] = False
    return np.where(keep, np.cumsum(keep), 0)[labels_DHW], int(keep.sum())


def num_found(shared_IJ: NDArray[np.int64]) -> int:
    """How many lesions of one mask are found in the other.

    Args:
        shared_IJ: voxels that are lesion i of the one and lesion j of the other; 0 is background.
    """
    outside_J = shared_IJ[0] / np.maximum(shared_IJ.sum(axis=0), 1)
    return sum(_is_found(shared_J, outside_J) for shared_J in shared_IJ[1:])


def _is_found(shared_J: NDArray[np.int64], outside_J: NDArray[np.float64]) -> bool:
    """Whether one lesion is; `outside_J` is the share of each lesion of the other mask that is outside of this one."""
    covered = int(shared_J[1:].sum())
    if covered <= LEAST_COVERED * int(shared_J.sum()):
        return False
    weighed = 0.0
    for number in np.argsort(-shared_J[1:], kind="stable") + 1:
        if weighed >= LEAST_WEIGHED:
            break
        if outside_J[number] > MOST_OUTSIDE:
            return False
        weighed += float(shared_J[number]) / covered
    return True


def _metric(name: str, title: str, unit: str = "", headline: str = "", **more: float) -> SegmentationMetric:
    is_count = bool(unit)
    return SegmentationMetric(
        title=title + STUDYS_GRID,
        unit=unit,
        higher_is_better=not is_count,
        lower=0.0,
        upper=math.inf if is_count else 1.0,
        measure=lambda pair: pair.once(new_lesion_scores)[name],
        headline=headline,
        fewest=100 if is_count else 5,  # as skewed as a difference of volumes
        of_what_is_found=name == "new_lesion_ppv",
        **more,  # type: ignore[arg-type]
    )


NEW_LESION_METRICS: dict[str, SegmentationMetric] = {
    "new_lesion_f1": _metric("new_lesion_f1", "New-lesion F1, patients with some", headline="new-lesion F1"),
    "new_lesion_tpr": _metric("new_lesion_tpr", "New lesions found (TPR), patients with some"),
    "new_lesion_ppv": _metric("new_lesion_ppv", "Predicted new lesions that are (PPV), patients with some"),
    "new_lesion_dsc": _metric("new_lesion_dsc", "Dice similarity, patients with new lesions"),
    "false_new_lesions": _metric(
        "false_new_lesions", "False new lesions, patients without any", "lesions", "false lesions", furthest=10_000.0
    ),
    "false_new_lesion_ml": _metric(
        "false_new_lesion_ml", "Volume of false new lesions, patients without any", "ml", furthest=20_000.0
    ),
}

NEW_LESION_NATIVE_METRICS: dict[str, SegmentationMetric] = {
    f"{name}{NATIVE}": on_own_grid(metric, "own-grid new-lesion F1" if name == "new_lesion_f1" else "")
    for name, metric in NEW_LESION_METRICS.items()
}
