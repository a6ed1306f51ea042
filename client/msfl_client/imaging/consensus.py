"""One mask of several raters': by majority, or by STAPLE; and how far the raters agree.

Legend: D/H/W voxels, R raters.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from msfl_common.metrics.segmentation import METRICS, segmentation_metrics

Mask = NDArray[np.bool_]
Method = Literal["majority", "staple"]
# A voxel of STAPLE is lesion where that is likelier than not.
_LIKELY = 0.5
AGREEMENT = ("dsc", "lesion_f1")


@dataclass(frozen=True)
class Consensus:
    """A mask of several raters', and what each is against it.

    Attributes:
        mask_DHW: the mask.
        sensitivity_R, specificity_R: of each rater, as STAPLE estimates them; NaN by majority, or where no rater drew.
    """

    mask_DHW: Mask
    sensitivity_R: tuple[float, ...]
    specificity_R: tuple[float, ...]


def merge_masks(masks_DHW: Sequence[Mask], method: Method) -> Consensus:
    """One mask of several raters', two or more, on the same grid.

    Args:
        masks_DHW: a mask of each rater.
        method: majority, voxels that more than half of the raters drew, of two raters those that both did; staple,
            voxels that are likelier lesion than not where each rater is weighed by its estimated sensitivity and
            specificity (Warfield et al. 2004, IEEE TMI 23:903), in a box 3 voxels around what was drawn.
    """
    unknown = (float("nan"),) * len(masks_DHW)
    drawn_DHW = np.any(masks_DHW, axis=0)
    if method == "majority" or not drawn_DHW.any():
        return Consensus(np.sum(masks_DHW, axis=0) * 2 > len(masks_DHW), unknown, unknown)
    box = _box(drawn_DHW)
    staple = sitk.STAPLEImageFilter()
    staple.SetForegroundValue(1.0)
    found = staple.Execute([sitk.GetImageFromArray(mask_DHW[box].astype(np.uint8)) for mask_DHW in masks_DHW])
    merged_DHW = np.zeros_like(drawn_DHW)
    merged_DHW[box] = sitk.GetArrayFromImage(found) > _LIKELY
    return Consensus(merged_DHW, tuple(staple.GetSensitivity()), tuple(staple.GetSpecificity()))


def agreement(one_DHW: Mask, other_DHW: Mask, spacing_mm: tuple[float, float, float]) -> dict[str, float]:
    """Figures of `AGREEMENT` of one mask against another; both are symmetric."""
    return segmentation_metrics(one_DHW, other_DHW, spacing_mm, {name: METRICS[name] for name in AGREEMENT})


def mean_agreement(masks_DHW: Sequence[Mask], spacing_mm: tuple[float, float, float]) -> dict[str, float]:
    """Means of `agreement` over every two raters."""
    pairs = [agreement(one, other, spacing_mm) for one, other in itertools.combinations(masks_DHW, 2)]
    return {name: float(np.mean([pair[name] for pair in pairs])) for name in AGREEMENT}


def _box(drawn_DHW: Mask) -> tuple[slice, ...]:
    """What was drawn, with 3 voxels around."""
    places = np.argwhere(drawn_DHW)
    low, high = np.maximum(places.min(axis=0) - 3, 0), places.max(axis=0) + 4
    return tuple(slice(int(start), int(end)) for start, end in zip(low, high, strict=True))
