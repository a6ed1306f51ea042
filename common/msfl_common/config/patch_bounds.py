"""How wide a patch may be, and how many windows cover a head: what a study may ask for in its settings alone."""

from __future__ import annotations

import math

_HEAD_MM = 180.0
_WIDEST_MM = 512.0
_MOST_WINDOWS = 30_000


def check_windows(patch_voxels: int, spacing_mm: float, overlap: float) -> None:
    """Refuse a patch that no head fills, and windows that a machine would take days over.

    Args:
        patch_voxels: edge of a patch and of a sliding window.
        spacing_mm: edge of a voxel.
        overlap: of windows, share of the edge.

    Raises:
        ValueError: says what is allowed.
    """
    if patch_voxels * spacing_mm > _WIDEST_MM:
        raise ValueError(
            f"training.patch_voxels: {patch_voxels} of {spacing_mm:g} mm are far wider than a head; expected at most "
            f"{int(_WIDEST_MM / spacing_mm)}"
        )
    step = max(1, int(patch_voxels * (1 - overlap)))
    windows = math.ceil(max(0.0, _HEAD_MM / spacing_mm - patch_voxels) / step + 1) ** 3
    if windows > _MOST_WINDOWS:
        raise ValueError(
            f"validation.window_overlap: some {windows} windows a case, expected at most {_MOST_WINDOWS}; lower it, "
            "or raise training.patch_voxels"
        )
