"""From files to the study's grid: orientation, spacing, normalisation, cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform
from scipy import ndimage

from msfl_client.imaging.resampling import normalise, resample
from msfl_client.segmentation.network_input import cached_network_input, make_network_input, make_network_inputs
from msfl_common.config.study import Inputs
from msfl_common.errors import CaseError

SIX_MM, FOUR_MM = Inputs.model_construct(contrasts=("T1w", "FLAIR"), spacing_mm=6.0), Inputs(spacing_mm=4.0)


def store_as(path: Path, axes: str) -> None:
    """Rewrite an RAS image with its voxel axes in another order; it shows the same in world space."""
    image = nib.load(path)
    transform = ornt_transform(axcodes2ornt(("R", "A", "S")), axcodes2ornt(tuple(axes)))
    voxels = nib.apply_orientation(np.asarray(image.dataobj), transform)
    nib.save(nib.Nifti1Image(voxels, image.affine @ inv_ornt_aff(transform, image.shape)), path)


def test_on_its_own_grid_an_image_is_only_cropped_and_scaled(site) -> None:
    case = site.cases()["sub-01"]
    prepared = make_network_input(case, SIX_MM)
    source = np.asarray(nib.load(case.images["T1w"]).dataobj)
    corner = [axis[0] for axis in np.nonzero((source > 0).any(axis=(1, 2)))]
    assert prepared.image_CDHW.shape[0] == 2
    brain = prepared.image_CDHW[0] > prepared.image_CDHW[0].min()
    assert brain.sum() == pytest.approx((source > 0).sum(), rel=0.01)  # the darkest are clipped to the floor
    assert abs(prepared.image_CDHW[0][brain].mean()) < 0.02
    assert prepared.image_CDHW[0][brain].std() == pytest.approx(1.0, abs=0.03)
    assert prepared.affine[0, 3] == pytest.approx(6.0 * corner[0])
    assert prepared.label_DHW is not None
    assert prepared.label_DHW.sum() == 4


@pytest.mark.parametrize("axes", ["LPS", "ASR", "LIA"])
def test_the_order_of_voxel_axes_does_not_matter(site, axes: str) -> None:
    case = site.cases()["sub-01"]
    straight = make_network_input(case, FOUR_MM)
    for path in (*case.images.values(), case.mask):
        store_as(path, axes)
    turned = make_network_input(case, FOUR_MM)
    assert np.allclose(turned.affine, straight.affine)
    assert np.allclose(turned.image_CDHW, straight.image_CDHW, atol=1e-4)
    assert np.array_equal(turned.label_DHW, straight.label_DHW)


def test_contrasts_on_other_grids_line_up(site) -> None:
    case = site.cases()["sub-01"]
    path = case.images["T1w"]
    image = nib.load(path)
    moved = resample(image, ((48, 56, 40), np.diag([3.0, 3.0, 3.0, 1.0])))
    nib.save(nib.Nifti1Image(moved, np.diag([3.0, 3.0, 3.0, 1.0])), path)
    prepared = make_network_input(case, SIX_MM)
    inside = [np.argwhere(channel > channel.min()).mean(axis=0) for channel in prepared.image_CDHW]
    assert np.allclose(inside[0], inside[1], atol=0.6)


def test_resampling_keeps_a_ramp_where_it_is_and_does_not_alias() -> None:
    ramp = np.broadcast_to(np.arange(40, dtype=np.float32)[:, None, None], (40, 40, 40)).copy()
    image = nib.Nifti1Image(ramp, np.eye(4))
    coarse = resample(image, ((20, 20, 20), np.diag([2.0, 2.0, 2.0, 1.0])))
    assert np.allclose(coarse[4:-4, 10, 10], 2.0 * np.arange(4, 16), atol=0.05)
    stripes = nib.Nifti1Image(np.where(np.indices((40, 40, 40))[0] % 2, 1.0, 0.0).astype(np.float32), np.eye(4))
    assert np.ptp(resample(stripes, ((20, 20, 20), np.diag([2.0, 2.0, 2.0, 1.0])))[4:-4]) < 0.3


def test_normalising_is_blind_to_gain_and_leaves_the_background_dark() -> None:
    image = np.zeros((8, 8, 8), np.float32)
    image[2:6, 2:6, 2:6] = np.random.default_rng(0).normal(100, 10, (4, 4, 4))
    assert np.allclose(normalise(image * 7), normalise(image), atol=1e-4)
    assert (normalise(image)[0] == normalise(image).min()).all()


def test_a_finer_mask_keeps_its_small_lesions(make_site: Callable[..., object]) -> None:
    """Blurred and cut at one half, they would vanish."""
    site = make_site()
    shape, affine = (96, 112, 80), np.diag([1.5, 1.5, 1.5, 1.0])
    mask = np.zeros(shape, np.uint8)
    for corner in (30, 45, 60):
        mask[corner : corner + 2, 50:52, 40:42] = 1
    for contrast in ("T1w", "FLAIR"):
        site.save(site.image("sub-01", contrast), site.head("1", shape), affine)  # type: ignore[attr-defined]
    site.save(site.mask("sub-01"), mask, affine)  # type: ignore[attr-defined]
    prepared = make_network_input(site.cases()["sub-01"], FOUR_MM)  # type: ignore[attr-defined]
    assert prepared.label_DHW is not None
    assert prepared.label_DHW.sum() == ndimage.label(prepared.label_DHW)[1] == 3


def test_an_empty_image_is_a_case_error(site) -> None:
    case = site.cases()["sub-01"]
    for path in case.images.values():
        site.save(path, np.zeros((24, 28, 20), np.float32))
    with pytest.raises(CaseError, match="expected a brain"):
        make_network_input(case, FOUR_MM)


def test_the_cache_gives_the_same_and_notices_change(site, tmp_path: Path) -> None:
    case = site.cases()["sub-01"]
    first = cached_network_input(case, FOUR_MM, tmp_path / "cache")
    again = cached_network_input(case, FOUR_MM, tmp_path / "cache")
    assert np.array_equal(first.image_CDHW, again.image_CDHW)
    assert np.array_equal(first.label_DHW, again.label_DHW)
    assert len(list((tmp_path / "cache").iterdir())) == 1
    site.save(case.images["T1w"], site.head("another"))
    changed = cached_network_input(case, FOUR_MM, tmp_path / "cache")
    assert not np.array_equal(first.image_CDHW, changed.image_CDHW)


def test_a_damaged_cache_file_is_made_again(site, tmp_path: Path) -> None:
    case = site.cases()["sub-01"]
    first = cached_network_input(case, FOUR_MM, tmp_path / "cache")
    next((tmp_path / "cache").iterdir()).write_bytes(b"half a fi")
    assert np.array_equal(first.image_CDHW, cached_network_input(case, FOUR_MM, tmp_path / "cache").image_CDHW)


def test_many_cases_keep_their_order(make_site: Callable[..., object], tmp_path: Path) -> None:
    site = make_site(subjects=[f"sub-{number}" for number in range(5)])
    cases = list(site.cases().values())  # type: ignore[attr-defined]
    together = make_network_inputs(cases, FOUR_MM, tmp_path / "a", 4)
    apart = [make_network_input(case, FOUR_MM) for case in cases]
    assert all(np.array_equal(a.image_CDHW, b.image_CDHW) for a, b in zip(together, apart, strict=True))
