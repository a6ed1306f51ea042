"""Whether a lesion mask lies in the brain that it is of, and on its own side."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from nibabel.affines import apply_affine

from msfl_client.data.findings import Finding
from msfl_client.imaging.fit import Points, ThinImage
from msfl_client.imaging.volumes import Volume

MOSTLY, NEARLY_ALL = 0.5, 0.9
BRIGHTER_SD, AS_LESIONS_SD = 0.25, 0.3
"""In SD of the brain: how much brighter the opposite side is than a mirrored mask, and than the brain.

At 36 simulated and 2 real patients lesions were .4 SD and more brighter than what lies opposite of them.
"""
_MIDDLES_MM = (-2.0, -1.0, 0.0, 1.0, 2.0)  # a brain's middle is known so well
_MOST_POINTS = 5000


def mask_place_rule(mask: Volume, brain: ThinImage) -> Iterator[Finding]:
    """A mask that lies mostly outside of the brain is refused, one that lies partly outside is said.

    Args:
        mask: of 0 and 1.
        brain: of the image that it was drawn on.
    """
    lesions = np.argwhere(mask.voxels_IJK > 0.5)
    if not len(lesions):
        return
    share = float(brain.shows(apply_affine(mask.affine, lesions)).mean())
    if share < NEARLY_ALL:
        text = f"{100 * (1 - share):.0f}% of its lesions' volume lies outside of the brain"
        yield Finding("warn" if share >= MOSTLY else "fail", None, "mask-place", text)


def mask_side_rule(mask: Volume, brain: ThinImage) -> Iterator[Finding]:
    """A mask beside which nothing is bright, but opposite, with left and right exchanged, is refused.

    Args:
        mask: of 0 and 1.
        brain: of an image on which lesions are bright.
    """
    lesions = np.argwhere(mask.voxels_IJK > 0.5)
    if not len(lesions):
        return
    points = np.asarray(apply_affine(mask.affine, lesions[:: 1 + len(lesions) // _MOST_POINTS]), np.float64)
    of_grid = float(apply_affine(mask.affine, (np.array(mask.shape) - 1) / 2)[0])
    middles_mm = [of_grid, *(float(brain.centre[0]) + aside_mm for aside_mm in _MIDDLES_MM)]
    here, opposite = brain.brightness_at(points), max(brain.brightness_at(_mirrored(points, x)) for x in middles_mm)
    values = brain.voxels_IJK[brain.brain_IJK]
    spread = float(values.std())
    if opposite > here + BRIGHTER_SD * spread and opposite > values.mean() + AS_LESIONS_SD * spread:
        text = "what it marks is darker than the same places on the other side of the brain: it seems to be mirrored"
        yield Finding("fail", None, "mask-side", text)


def _mirrored(points: Points, middle_mm: float) -> Points:
    return points * (-1.0, 1.0, 1.0) + (2 * middle_mm, 0.0, 0.0)
