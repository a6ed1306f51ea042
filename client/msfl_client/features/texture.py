"""Texture of a tissue by grey-level co-occurrence (Haralick et al. 1973, doi 10.1109/TSMC.1973.4309314).

Legend: D, H, W are voxels towards right, anterior and superior (RAS); L grey levels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NUM_LEVELS = 16
RANGE = (0.6, 1.4)  # share of the tissue's median that the levels are spread over
FEWEST_PAIRS = 1000


def glcm_features(image_DHW: NDArray[np.float32], tissue_DHW: NDArray[np.bool_]) -> dict[str, float]:
    """Contrast, homogeneity, correlation and entropy (bits) of neighbours in axial slices, both in the tissue.

    Pairs of the four directions of all slices are counted together, in either order.

    Args:
        image_DHW: any scale; levels are relative to the tissue's median.
        tissue_DHW: where to look.

    Returns:
        The four by name; empty when the tissue holds too few pairs, or no signal.
    """
    from skimage.feature import graycomatrix, graycoprops  # slow to import

    median = float(np.median(image_DHW[tissue_DHW])) if tissue_DHW.any() else 0.0
    if median <= 0:
        return {}
    edges = np.linspace(*RANGE, NUM_LEVELS + 1)[1:-1] * median
    # Level 0 stands for everything else; its pairs are dropped.
    levels_DHW = np.where(tissue_DHW, np.digitize(image_DHW, edges) + 1, 0).astype(np.uint8)
    pairs_LL = np.zeros((NUM_LEVELS, NUM_LEVELS))
    for levels_DH in np.moveaxis(levels_DHW, 2, 0):
        if levels_DH.any():
            angles = (0, np.pi / 4, np.pi / 2, 3 * np.pi / 4)
            counted = graycomatrix(levels_DH, [1], angles, levels=NUM_LEVELS + 1, symmetric=True)
            pairs_LL += counted[1:, 1:].sum(axis=(2, 3))
    if pairs_LL.sum() < FEWEST_PAIRS:
        return {}
    share_LL = pairs_LL / pairs_LL.sum()
    names = ("contrast", "homogeneity", "correlation")
    features = {name: float(graycoprops(share_LL[:, :, None, None], name)[0, 0]) for name in names}
    present = share_LL[share_LL > 0]
    return {**features, "entropy": float(-(present * np.log2(present)).sum())}
