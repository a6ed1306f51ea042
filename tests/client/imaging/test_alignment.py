"""Two contrasts of one brain: found where they lie, mirrored or of another head; and nothing said of what is right."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage
from tests.brains import brain, displaced, residual_mm, thin

from msfl_client.imaging.alignment import align
from msfl_client.imaging.fit import Fit, overlap
from msfl_client.imaging.registration import load_template


@pytest.mark.parametrize("spacing_mm", [(2.0, 2.0, 2.0), (2.0, 2.0, 6.0), (6.0, 2.0, 2.0)])
def test_brains_that_lie_on_one_another_stay_to_the_bit(spacing_mm: tuple[float, float, float]) -> None:
    t1w, flair = thin(brain("T1w")), thin(brain("FLAIR", 0, spacing_mm))
    for moving, fixed in ((t1w, flair), (flair, t1w)):
        found = align(moving, fixed)
        assert (found.verdict, found.knows_sides) == ("aligned", True)
        assert np.array_equal(found.matrix, np.eye(4))


def test_a_brain_that_another_tool_drew_smaller_stays() -> None:
    t1w, flair = brain("T1w"), brain("FLAIR")
    voxels = np.asarray(flair.dataobj)
    inside = ndimage.distance_transform_edt(voxels > 0, sampling=2.0) > 4
    inside[:, :, :20] = False  # and without the lowest 4 cm
    assert align(thin(t1w), thin(nib.Nifti1Image(voxels * inside, flair.affine))).verdict == "aligned"


def biased(image: nib.Nifti1Image, strength: float) -> np.ndarray:
    x, y, _ = np.meshgrid(*(np.linspace(-1, 1, size) for size in image.shape), indexing="ij")
    return (np.asarray(image.dataobj) * np.exp(strength * (x + 0.7 * y))).astype(np.float32)


@pytest.mark.long
def test_a_bias_field_does_not_part_brains_of_which_one_was_drawn_smaller() -> None:
    """Before N4, brightness changes more from side to side than between tissues."""
    t1w, flair = brain("T1w"), brain("FLAIR")
    inside = ndimage.distance_transform_edt(np.asarray(flair.dataobj) > 0, sampling=2.0) > 4
    fixed = thin(nib.Nifti1Image(biased(flair, 0.4) * inside, flair.affine))
    assert align(thin(nib.Nifti1Image(biased(t1w, 0.4), t1w.affine)), fixed).verdict == "aligned"


@pytest.mark.slow
@pytest.mark.parametrize(("degrees", "mm"), [(2.0, 0.0), (15.0, 40.0)])
def test_a_displaced_brain_is_brought_back(degrees: float, mm: float) -> None:
    t1w, flair = thin(brain("T1w")), thin(brain("FLAIR"))
    moving = displaced(t1w, degrees, mm)
    found = align(moving, flair)
    assert found.verdict == "moved"
    assert found.turned_degrees == pytest.approx(degrees, abs=0.3)
    assert residual_mm(found, t1w, moving) < 0.5


@pytest.mark.long
def test_a_mirrored_brain_and_another_head_are_told() -> None:
    t1w, flair = thin(brain("T1w")), thin(brain("FLAIR"))
    assert align(displaced(t1w.mirrored(), 5, 5), flair).verdict == "mirrored"
    assert align(displaced(thin(brain("T1w", 1)), 5, 15), flair).verdict == "apart"


@pytest.mark.slow
def test_a_symmetric_head_lies_right_and_says_that_its_sides_are_not_known() -> None:
    voxels = np.asarray(load_template(2.0).dataobj)
    half = voxels + voxels[::-1]
    flair = np.where(half > 0.7, 2.4 - half, 0.5) * (half > 0)
    there = [thin(nib.Nifti1Image(image.astype(np.float32), load_template(2.0).affine)) for image in (half, flair)]
    found = align(*there)
    assert (found.verdict, found.knows_sides) == ("aligned", False)


def test_brains_of_few_voxels_are_held_against_their_masks_alone() -> None:
    index = np.indices((24, 28, 20)) - np.array([12, 14, 10])[:, None, None, None]
    ball = (np.sqrt((index**2).sum(axis=0)) < 9).astype(np.float32)
    coarse = thin(nib.Nifti1Image(ball, np.diag([6.0, 6.0, 6.0, 1.0])))
    assert overlap(coarse, coarse) == pytest.approx(1)
    assert (align(coarse, coarse).verdict, align(coarse, coarse).knows_sides) == ("aligned", None)
    assert align(displaced(coarse, 0, 40), coarse).verdict == "apart"


def test_a_mirrored_brain_of_few_voxels_is_told() -> None:
    """Some 2,000 voxels away from the rim: too few for the shape of a peak."""
    t1w, flair = (thin(brain(contrast, 0, (8.0, 8.0, 8.0))) for contrast in ("T1w", "FLAIR"))
    assert not Fit(flair, t1w).is_possible
    assert (align(t1w, flair).verdict, align(t1w, flair).knows_sides) == ("aligned", True)
    assert align(t1w.mirrored(), flair).verdict == "mirrored"


def test_intensities_may_be_shifted_scaled_and_inverted() -> None:
    t1w, flair = brain("T1w"), np.asarray(brain("FLAIR").dataobj)
    inside = flair > 0
    for voxels in (flair + 100, -flair, np.where(inside, (flair - flair[inside].mean()) / flair[inside].std(), 0)):
        assert align(thin(nib.Nifti1Image(voxels.astype(np.float32), t1w.affine)), thin(t1w)).verdict == "aligned"
