"""Radiomics of a case: shape, intensity and texture (`ibsi`) of its lesions and tissues.

Intensities are shares of the contrast's median in normal-appearing white matter, so that they and the grey levels of
the texture mean the same in every scan. Legend: D, H, W are voxels towards right, anterior and superior (RAS).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray
from scipy import ndimage

from msfl_client.features import ibsi
from msfl_client.features.tissues import Tissues
from msfl_client.imaging.common_space import CommonSpaceCase
from msfl_common.config.contrasts import CONTRASTS
from msfl_common.config.radiomics_catalogue import (
    FAMILIES,
    LEVEL_WIDTH,
    NUM_LEVELS,
    Region,
    intensity_feature,
    shape_feature,
)
from msfl_common.metrics.segmentation import label_lesions

FEWEST = 30  # voxels of a region whose intensity and texture are measured
FEWEST_OF_LESION = 8  # voxels of a lesion that has a shape
MOSTLY = 0.5  # share of a voxel that is the tissue whose shape is measured

Mask = NDArray[np.bool_]


def radiomics_features(
    case: CommonSpaceCase, tissues: Tissues, normal_DHW: Mask, mostly_gm_DHW: Mask
) -> dict[str, float]:
    """The radiomics of a case; what cannot be measured is not there.

    Args:
        case: with a T1w.
        tissues: of the case.
        normal_DHW: its normal-appearing white matter.
        mostly_gm_DHW: where signal is that of grey matter.
    """
    found = dict(_shapes(case, tissues))
    regions: dict[Region, Mask] = {"wm": normal_DHW, "gm": mostly_gm_DHW}
    if case.lesion_DHW is not None:
        regions["lesion"] = case.lesion_DHW
    for contrast, facts in CONTRASTS.items():
        if not facts.has_features or contrast not in case.images_DHW or contrast in case.without_black:
            continue
        image_DHW = case.images_DHW[contrast]
        median = float(np.median(image_DHW[normal_DHW])) if normal_DHW.any() else 0.0
        if median <= 0:
            continue
        for region, region_DHW in regions.items():
            if np.count_nonzero(region_DHW) >= FEWEST:
                measured = _of_region(image_DHW / np.float32(median), region_DHW)
                found |= {
                    intensity_feature(contrast, region, family, name): value
                    for family, values in measured.items()
                    for name, value in values.items()
                }
    return found


def grey_levels(image_DHW: NDArray[np.float32], region_DHW: Mask) -> ibsi.Levels:
    """Grey levels of fixed width from 0 (chapter 2.7), those above the last in the last; 0 outside of the region."""
    levels_DHW = np.clip(np.floor(image_DHW / LEVEL_WIDTH).astype(np.int64) + 1, 1, NUM_LEVELS)
    return np.where(region_DHW, levels_DHW, 0)


def _of_region(image_DHW: NDArray[np.float32], region_DHW: Mask) -> Mapping[str, Mapping[str, float]]:
    box = ndimage.find_objects(region_DHW.astype(np.uint8))[0]
    inside_DHW, part_DHW = region_DHW[box], image_DHW[box]
    levels_DHW = grey_levels(part_DHW, inside_DHW)
    measured = (
        ibsi.intensity_statistics(part_DHW[inside_DHW].astype(np.float64)),
        ibsi.intensity_histogram(levels_DHW[inside_DHW]),
        ibsi.cooccurrence(levels_DHW),
        ibsi.size_zones(levels_DHW),
    )
    return dict(zip(FAMILIES, measured, strict=True))


def _shapes(case: CommonSpaceCase, tissues: Tissues) -> Iterator[tuple[str, float]]:
    """Of each tissue; of lesions the mean over those of `FEWEST_OF_LESION` voxels, each by its volume."""
    regions: dict[Region, list[Mask]] = {
        "wm": [tissues.wm_DHW >= MOSTLY],
        "gm": [tissues.gm_DHW >= MOSTLY],
        "lesion": _lesions(case),
    }
    d, h, w = (float(size) for size in voxel_sizes(case.affine))
    larger = float(abs(np.linalg.det(case.native_to_mni[:3, :3]))) ** (1 / 3)  # than the patient's own head, lengths
    spacing_mm = (d / larger, h / larger, w / larger)
    for region, masks in regions.items():
        masks = [mask_DHW for mask_DHW in masks if np.count_nonzero(mask_DHW) >= FEWEST_OF_LESION]
        if not masks:
            continue
        sizes = [np.count_nonzero(mask_DHW) for mask_DHW in masks]
        shapes = [ibsi.morphology(mask_DHW, spacing_mm) for mask_DHW in masks]
        for name in shapes[0]:
            yield shape_feature(region, name), float(np.average([shape[name] for shape in shapes], weights=sizes))


def _lesions(case: CommonSpaceCase) -> list[Mask]:
    """Each lesion by itself, cut to its box."""
    if case.lesion_DHW is None:
        return []
    d, h, w = (float(size) for size in voxel_sizes(case.affine))
    labels_DHW, _ = label_lesions(case.lesion_DHW, (d, h, w))
    boxes = ndimage.find_objects(labels_DHW)
    return [labels_DHW[box] == number for number, box in enumerate(boxes, start=1)]
