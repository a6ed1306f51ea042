"""Contrasts beside each other, and a mask beside its image: read right, or refused, by check and training alike."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage
from tests.brains import brain, displaced, thin

from msfl_client.data.aligned_images import read_aligned
from msfl_client.data.case_checks import check_case
from msfl_client.imaging.brain_signal import read_brain
from msfl_client.segmentation.network_input import make_network_input
from msfl_common.config.study import Inputs
from msfl_common.errors import CaseError

INPUTS = Inputs(spacing_mm=3.0)


@pytest.fixture
def case(site):
    """A simulated brain, and a mask with one lesion in its middle."""
    for name in ("T1w", "FLAIR"):
        nib.save(brain(name), site.image("sub-01", name))
    draw(site, (0, 0, 0))
    return site.cases()["sub-01"]


def draw(site, aside: tuple[int, int, int]) -> None:
    image = brain("FLAIR")
    middle = np.round(ndimage.center_of_mass(np.asarray(image.dataobj) > 0)).astype(int) + aside
    mask = np.zeros(image.shape, np.uint8)
    mask[tuple(slice(at - 3, at + 3) for at in middle)] = 1
    nib.save(nib.Nifti1Image(mask, image.affine), site.mask("sub-01"))


def displace(path: Path, degrees: float, mm: float, flip: bool = False) -> None:
    image = nib.load(path)
    there = thin(image).mirrored() if flip else thin(image)
    matrix = displaced(there, degrees, mm).affine @ np.linalg.inv(thin(image).affine)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), matrix @ image.affine), path)


def found(case) -> list[tuple[str, str]]:
    return [(one.level, one.rule) for one in check_case(case, INPUTS, True) if one.rule not in ("grid", "oblique")]


def test_what_lies_right_is_read_as_the_file_has_it(case) -> None:
    assert found(case) == []
    read = read_aligned(case, INPUTS.contrasts, "FLAIR")
    for name, image in read.images.items():
        own = read_brain(case.images[name]).image
        assert np.array_equal(image.affine, own.affine)
        assert np.array_equal(np.asarray(image.dataobj), np.asarray(own.dataobj))


@pytest.mark.long
def test_a_displaced_contrast_is_said_and_read_where_it_belongs(case) -> None:
    right = make_network_input(case, INPUTS)
    displace(case.images["T1w"], 5, 6)
    (finding,) = [one for one in check_case(case, INPUTS, True) if one.rule == "alignment"]
    assert finding.level == "warn"
    assert finding.text.startswith("T1w lies 7.")
    assert "degrees off FLAIR; it is co-registered" in finding.text
    mended = make_network_input(case, INPUTS)
    middles = [[ndimage.center_of_mass(one > one.min()) for one in each.image_CDHW] for each in (right, mended)]
    assert np.allclose(np.subtract(*middles[0]), np.subtract(*middles[1]), atol=0.2)
    assert np.array_equal(
        np.sort(right.image_CDHW[1], axis=None)[-500:], np.sort(mended.image_CDHW[1], axis=None)[-500:]
    )
    read = read_aligned(case, INPUTS.contrasts, "T1w")  # the other way: the T1w stays, FLAIR and mask go with it
    assert np.array_equal(read.images["T1w"].affine, nib.as_closest_canonical(nib.load(case.images["T1w"])).affine)
    assert read.mask is not None
    assert np.allclose(read.mask.affine, read.images["FLAIR"].affine)
    assert not np.allclose(read.mask.affine, brain("FLAIR").affine, atol=1)


@pytest.mark.slow
def test_a_mirrored_contrast_is_refused(case) -> None:
    displace(case.images["FLAIR"], 0, 0, flip=True)
    assert found(case)[:1] == [("fail", "mirrored")]
    with pytest.raises(CaseError, match="only with left and right exchanged"):
        make_network_input(case, INPUTS)


@pytest.mark.parametrize(
    ("aside", "expected"),
    [((0, 0, 0), []), ((0, -39, 0), [("warn", "mask-place")]), ((0, -48, 0), [("fail", "mask-place")])],
)
def test_a_mask_outside_of_the_brain_is_said_or_refused(site, case, aside, expected) -> None:
    draw(site, aside)
    assert found(case) == expected
