"""From images to slices: which, where, how bright, cached."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from msfl_client.classification.visit_volumes import _pick, cached_volume, load_volume, visit_volume
from msfl_client.imaging.resampling import read_image
from msfl_common.config.classification import DeepModel
from msfl_common.config.inputs import Inputs
from msfl_common.errors import CaseError
from msfl_common.models.deep_models.visit_classifier import FIELD_MM

INPUTS = Inputs()
SMALL = DeepModel(kind="resnet3d", slices=8, pixels=16)


def image_of(voxels: np.ndarray, affine: np.ndarray) -> nib.Nifti1Image:
    return nib.Nifti1Image(voxels.astype(np.float32), affine)


def brain(num_slices: int, empty_above: int = 2) -> nib.Nifti1Image:
    """A box of 100 x 150 mm whose slice k, from the lowest, holds k + 1; pixels of the small model's own size."""
    step = FIELD_MM / SMALL.pixels
    voxels = np.zeros((24, 24, num_slices + empty_above + 1))
    voxels[5:13, 7:19, 1 : num_slices + 1] = np.arange(1, num_slices + 1)
    return image_of(voxels, np.diag([step, step, 3.0, 1.0]))


def levels(volume_CDHW: np.ndarray) -> list[float]:
    """The brightest voxel of each slice."""
    return [float(slice_HW.max()) for slice_HW in volume_CDHW[0]]


@pytest.mark.parametrize(
    ("found", "wanted", "picked"),
    [
        (3, 8, [0, 1, 2]),
        (8, 8, list(range(8))),
        (15, 8, [0, 2, 4, 6, 8, 10, 12, 14]),
        (60, 4, [0, 20, 39, 59]),
        (1, 8, [0]),
    ],
)
def test_slices_are_taken_at_regular_intervals(found: int, wanted: int, picked: list[int]) -> None:
    assert _pick(found, wanted).tolist() == picked


def test_fewer_slices_are_padded_on_both_sides() -> None:
    volume = visit_volume({"T1w": brain(5)}, ("T1w",), SMALL)
    assert volume.shape == (1, 8, 16, 16)
    assert levels(volume) == [0, 51, 102, 153, 204, 255, 0, 0]


def test_more_slices_are_thinned_out() -> None:
    assert levels(visit_volume({"T1w": brain(15)}, ("T1w",), SMALL)) == [17.0 * (k + 1) for k in range(0, 15, 2)]


def test_pixels_are_those_of_the_field_about_the_brain() -> None:
    volume = visit_volume({"T1w": brain(8)}, ("T1w",), SMALL)
    rows, columns = np.nonzero(volume[0, 7])  # to the front, to the right
    assert (rows.min(), rows.max()) == (2, 13)
    assert (columns.min(), columns.max()) == (4, 11)
    assert (volume[0, 7, 2:14, 4:12] == 255).all()


def test_front_and_right_are_where_they_were() -> None:
    voxels = np.asarray(brain(8).dataobj).copy()
    voxels[5:9, 7:19] *= 0.5  # the left half is darker
    voxels[5:13, 7:13] *= 0.5  # so is the back
    straight = image_of(voxels, brain(8).affine)
    volume = visit_volume({"T1w": straight}, ("T1w",), SMALL)
    quarters = [volume[0, 7, row, column] for row in (4, 11) for column in (5, 10)]
    assert quarters == pytest.approx([255 / 4, 255 / 2, 255 / 2, 255], abs=1)
    turned = straight.slicer[::-1, :, ::-1]  # the same in the world, stored from the left and from above
    assert np.array_equal(visit_volume({"T1w": nib.as_closest_canonical(turned)}, ("T1w",), SMALL), volume)


def test_each_contrast_is_scaled_by_itself_onto_the_same_slices() -> None:
    first = brain(8)
    voxels = np.asarray(first.dataobj)
    other = image_of(np.repeat(np.where(voxels > 0, 3000.0, 0.0), 2, axis=2), first.affine @ np.diag([1, 1, 0.5, 1]))
    other.affine[2, 3] = -0.75  # halves of the same slices
    volume = visit_volume({"T1w": first, "FLAIR": other}, ("T1w", "FLAIR"), SMALL)
    assert np.array_equal(volume[1] > 0, volume[0] > 0)
    assert set(np.unique(volume[1])) == {0, 255}


def test_one_hot_voxel_does_not_darken_the_rest() -> None:
    voxels = np.asarray(brain(120).dataobj) / 120
    voxels[8, 10, 60] = 1e6
    volume = visit_volume({"T1w": image_of(voxels, brain(120).affine)}, ("T1w",), SMALL)
    assert volume.max() == 255
    assert np.median(volume[volume > 0]) == pytest.approx(127, abs=20)


def test_a_missing_contrast_is_empty_and_keeps_its_place() -> None:
    both = visit_volume({"T1w": brain(8), "FLAIR": brain(8)}, ("FLAIR", "T1w"), SMALL)
    alone = visit_volume({"T1w": brain(8)}, ("FLAIR", "T1w"), SMALL)
    assert not alone[0].any()
    assert np.array_equal(alone[1], both[1])


def test_a_visit_without_a_usable_image_is_refused() -> None:
    with pytest.raises(CaseError, match="expected an image of T1w or FLAIR, found none"):
        visit_volume({}, ("T1w", "FLAIR"), SMALL)
    empty = image_of(np.zeros((4, 4, 4)), np.eye(4))
    with pytest.raises(CaseError, match="expected positive intensities"):
        visit_volume({"T1w": empty}, ("T1w",), SMALL)


def test_volumes_are_cached_until_something_changes(site, tmp_path: Path) -> None:
    case = site.cases()["sub-01"]
    path = cached_volume(case, INPUTS, SMALL, tmp_path)
    images = {contrast: read_image(case.images[contrast]) for contrast in ("T1w", "FLAIR")}
    volume = load_volume(path)
    assert volume.dtype == np.float32
    assert np.array_equal(volume, visit_volume(images, ("T1w", "FLAIR"), SMALL))
    assert 200 < volume.max() <= 255
    written = path.stat().st_ino
    assert cached_volume(case, INPUTS, SMALL, tmp_path) == path
    assert path.stat().st_ino == written, "not written anew"
    path.write_bytes(path.read_bytes()[:-9])
    assert np.array_equal(load_volume(cached_volume(case, INPUTS, SMALL, tmp_path)), volume)
    larger = SMALL.model_copy(update={"pixels": 20})
    t1w = replace(case, images={"T1w": case.images["T1w"]})
    others = [
        cached_volume(case, INPUTS, larger, tmp_path),
        cached_volume(case, Inputs(contrasts=("T1w",)), SMALL, tmp_path),
    ]
    others.append(cached_volume(t1w, INPUTS, SMALL, tmp_path))
    others.append(cached_volume(case, Inputs(denoising="anisotropic-diffusion"), SMALL, tmp_path))
    os.utime(case.images["FLAIR"], ns=(0, 0))
    others.append(cached_volume(case, INPUTS, SMALL, tmp_path))
    assert len({path, *others}) == 6
    assert case.subject not in " ".join(file.name for file in tmp_path.iterdir())


def test_the_lesion_mask_is_a_channel_of_its_own() -> None:
    first = brain(8)
    lesions = np.zeros(first.shape, np.float32)
    lesions[7:9, 9:11, 4:6] = 1
    mask = image_of(lesions, first.affine)
    plain, seen = (visit_volume({"T1w": first}, ("T1w",), SMALL, one) for one in (None, mask))
    assert np.array_equal(seen[:1], plain)
    assert set(np.unique(seen[1])) == {0, 255}
    assert (seen[1] > 0).sum() == lesions.sum()
    assert np.flatnonzero(seen[1].any(axis=(1, 2))).tolist() == [3, 4]  # the brain's lowest slice is the image's second
    without = visit_volume({"T1w": first}, ("T1w",), SMALL, image_of(np.zeros(first.shape), first.affine))
    assert not without[1].any()


def test_a_study_that_sees_masks_has_volumes_of_its_own(site, tmp_path: Path) -> None:
    case, asked = site.cases()["sub-01"], Inputs(masks=("lesion",))
    assert asked.network_channels == ("T1w", "FLAIR", "lesionmask")
    path = cached_volume(case, asked, SMALL, tmp_path)
    plain = cached_volume(case, INPUTS, SMALL, tmp_path)
    assert len(load_volume(path)) == 3
    assert np.array_equal(load_volume(path)[:2], load_volume(plain))
    os.utime(case.mask, ns=(0, 0))
    assert cached_volume(case, asked, SMALL, tmp_path) != path
    assert cached_volume(case, INPUTS, SMALL, tmp_path) == plain
    with pytest.raises(CaseError, match="expected a manual lesion mask, found none"):
        cached_volume(replace(case, mask=None), asked, SMALL, tmp_path)
