"""Lesions that appeared or grew between two visits of a patient, both in the common space.

Legend: D, H, W are voxels towards right, anterior and superior (RAS).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from msfl_common.metrics.segmentation import label_lesions

# Outlined again without change, a small lesion's size varies by up to 45% (doi 10.1001/archneur.1992.00530270075021).
GROWTH = 0.5
# In 15 simulated patients without any change, outlined twice at 2 mm, 24 of 32 lesions that the second outline alone
# has, and 38 of 46 that grew by half, are below these two.
NEW_MM3 = 30.0
GROWTH_MM3 = 50.0

Change = Literal["new", "enlarging", "stable"]


@dataclass(frozen=True)
class ChangedLesion:
    """A lesion of the later visit.

    Attributes:
        change: what became of it.
        num_voxels: its size.
    """

    change: Change
    num_voxels: int


def compare_lesions(
    earlier_DHW: NDArray[np.bool_],
    later_DHW: NDArray[np.bool_],
    spacing_mm: tuple[float, float, float],
    voxel_mm3: float,
) -> list[ChangedLesion]:
    """What became of each lesion (26-connected, at least 3 mm3) of the later visit.

    New: at least 30 mm3, and no voxel of the earlier mask lies in it or touches it; the voxel between them is for
    alignment. Enlarging: larger by half, and by 50 mm3, than the earlier mask in it and around it by a voxel.

    Args:
        earlier_DHW: lesion mask of the earlier visit.
        later_DHW: lesion mask of the later visit, on the same grid.
        spacing_mm: voxel size of the grid.
        voxel_mm3: volume that a voxel stands for in the patient's own head.
    """
    labels_DHW, num_lesions = label_lesions(later_DHW, spacing_mm)
    lesions = []
    for number, box in enumerate(ndimage.find_objects(labels_DHW, num_lesions), start=1):
        wider = tuple(slice(max(axis.start - 1, 0), axis.stop + 1) for axis in box)
        lesion_DHW = labels_DHW[wider] == number
        around_DHW = ndimage.binary_dilation(lesion_DHW, np.ones((3, 3, 3), bool))
        num_before, num_now = np.count_nonzero(earlier_DHW[wider] & around_DHW), np.count_nonzero(lesion_DHW)
        lesions.append(ChangedLesion(_change(num_before, num_now, voxel_mm3), num_now))
    return lesions


def _change(num_before: int, num_now: int, voxel_mm3: float) -> Change:
    if num_before == 0:
        return "new" if num_now * voxel_mm3 >= NEW_MM3 else "stable"
    growth = num_now - num_before
    return "enlarging" if growth >= GROWTH * num_before and growth * voxel_mm3 >= GROWTH_MM3 else "stable"
