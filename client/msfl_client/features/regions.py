"""Means of quantities, such as fractional anisotropy, over tissues and the regions of the atlas.

A mean is over voxels that are mostly the region's tissue, in the quantity's own unit; of fewer than `FEWEST` voxels
there is none. Legend: D, H, W are voxels towards right, anterior and superior (RAS).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from msfl_client.features.atlas import Atlas
from msfl_client.features.tissues import Tissues
from msfl_client.imaging.common_space import CommonSpaceCase
from msfl_common.config.contrasts import Contrast
from msfl_common.config.feature_catalogue import CORTEX, SIDES, region_feature

MOSTLY = 0.5  # share of a voxel that is the region's tissue
FEWEST = 5

Mask = NDArray[np.bool_]


def region_means(
    contrast: Contrast, case: CommonSpaceCase, tissues: Tissues, atlas: Atlas, normal_DHW: Mask
) -> dict[str, float]:
    """The means of a quantity of a case.

    Args:
        contrast: the quantity; `case.scales` has it.
        case: with a T1w, too.
        tissues: of the case.
        atlas: on its grid.
        normal_DHW: its normal-appearing white matter.
    """
    values_DHW = case.images_DHW[contrast].astype(np.float64) / case.scales[contrast]
    found = {
        region_feature(contrast, name): float(values_DHW[region_DHW].mean())
        for name, region_DHW in _masks(case, tissues, atlas, normal_DHW)
        if np.count_nonzero(region_DHW) >= FEWEST
    }
    gm_DHW = tissues.gm_DHW >= MOSTLY
    labels_N = atlas.cortex_labels_DHW[gm_DHW]
    counts = np.bincount(labels_N)
    sums = np.bincount(labels_N, weights=values_DHW[gm_DHW])
    for number, side in enumerate(SIDES, start=1):
        for region, name in CORTEX.items():
            label = 1000 * number + region
            if label < len(counts) and counts[label] >= FEWEST:
                found[region_feature(contrast, f"{side}_{name}")] = float(sums[label] / counts[label])
    return found


def _masks(case: CommonSpaceCase, tissues: Tissues, atlas: Atlas, normal_DHW: Mask) -> Iterator[tuple[str, Mask]]:
    tissue_DHW = tissues.gm_DHW + tissues.wm_DHW >= MOSTLY
    yield "gm", tissues.gm_DHW >= MOSTLY
    yield "wm", normal_DHW
    if case.lesion_DHW is not None:
        yield "lesion", case.lesion_DHW
    yield "cerebellum", atlas.cerebellum_DHW & tissue_DHW
    yield "brainstem", atlas.brainstem_DHW & tissue_DHW
    yield "corpus_callosum", atlas.corpus_callosum_DHW & (tissues.wm_DHW >= MOSTLY)
    for name, region_DHW in atlas.nuclei.items():
        yield name, region_DHW & tissue_DHW
