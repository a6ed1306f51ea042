"""Two visits in the common space, of which the later one lies elsewhere."""

from __future__ import annotations

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage
from tests.brains import brain

from msfl_client.features.visit_alignment import on_earlier_visit
from msfl_client.imaging.common_space import CommonSpaceCase
from msfl_common.errors import CaseError


def visit(head: int = 0, shift_mm: float = 0.0, mirrored: bool = False) -> CommonSpaceCase:
    image = nib.as_closest_canonical(brain("FLAIR", head))
    voxels_DHW = np.asarray(image.dataobj)
    lesion_DHW = np.zeros(voxels_DHW.shape, bool)
    lesion_DHW[40:46, 50:56, 40:45] = lesion_DHW[60:63, 40:44, 42:45] = True
    voxels = round(shift_mm / 2)
    voxels_DHW, lesion_DHW = (np.roll(one, (voxels, voxels), (1, 2)) for one in (voxels_DHW, lesion_DHW))
    if mirrored:
        voxels_DHW, lesion_DHW = voxels_DHW[::-1], lesion_DHW[::-1]
    brain_DHW = ndimage.binary_fill_holes(voxels_DHW > 0)
    return CommonSpaceCase({"FLAIR": voxels_DHW}, brain_DHW, lesion_DHW, np.asarray(image.affine), np.eye(4))


def test_visits_that_lie_on_one_another_are_compared_as_they_are() -> None:
    later = visit()
    assert on_earlier_visit(visit(), later) is later
    without = replace(later, lesion_DHW=None)
    assert on_earlier_visit(visit(1), without) is without  # nothing to compare


@pytest.mark.slow
def test_lesions_of_a_visit_that_lies_a_little_off_are_brought_back() -> None:
    earlier = visit()
    found = on_earlier_visit(earlier, visit(shift_mm=2.0)).lesion_DHW
    assert found is not None
    assert earlier.lesion_DHW is not None
    assert np.array_equal(found, earlier.lesion_DHW) or (found & earlier.lesion_DHW).sum() > 0.9 * found.sum()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("later", "reason"),
    [({"shift_mm": 8.0}, "lies 11 mm off"), ({"mirrored": True}, "left and right exchanged")],
)
def test_a_visit_that_cannot_be_right_is_refused(later: dict, reason: str) -> None:
    with pytest.raises(CaseError, match=reason):
        on_earlier_visit(visit(), visit(**later))
