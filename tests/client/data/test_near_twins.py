"""One head under two names, however it was saved; other heads are others."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from tests.conftest import BidsSite

from msfl_client.data.bids import Case
from msfl_client.data.checks import check_site
from msfl_client.data.near_twins import NEARLY_THE_SAME, near_twins, picture_of
from msfl_client.imaging.volumes import Volume, open_nifti, to_volume
from msfl_common.config.study import Inputs

SHAPE = (40, 44, 36)


def head(seed: int) -> NDArray[np.float32]:
    """An ellipsoid with soft blobs of its own, on a background of 0."""
    axes = np.meshgrid(*(np.linspace(-1, 1, size) for size in SHAPE), indexing="ij")
    rng = np.random.default_rng(seed)
    inside, voxels = sum(axis**2 for axis in axes) < 0.8, np.full(SHAPE, 200.0)
    for centre, height in zip(rng.uniform(-0.6, 0.6, (12, 3)), rng.normal(0, 60, 12), strict=True):
        squared = sum((axis - at) ** 2 for axis, at in zip(axes, centre, strict=True))
        voxels += height * np.exp(-squared / 0.05)
    return np.asarray(inside * voxels, np.float32)


def volume_of(voxels: NDArray[np.float32], affine: NDArray[np.float64] | None = None) -> Volume:
    return Volume(voxels, np.diag([4.0, 4, 4, 1]) if affine is None else affine, None, False)


def pairs(**volumes: Volume) -> list[tuple[str | None, str]]:
    """Who is found to be whom, of patients with a volume each."""
    cases = [Case(0, f"sub-{name}", None, {}, None, None) for name in volumes]
    pictures = {f"sub-{name}": {"T1w": picture} for name, one in volumes.items() if (picture := picture_of(one))}
    return [(one.case, one.text.split(" (")[0]) for one in near_twins(cases, pictures, set())]


@pytest.mark.parametrize("how", ["scale", "order", "margin", "bias", "noise", "half"])
def test_a_scan_that_was_saved_again_is_found(how: str) -> None:
    voxels = head(1)
    noise = np.random.default_rng(0).normal(0, 2, SHAPE).astype(np.float32)
    turned = np.eye(4)[[1, 2, 0, 3]] @ np.diag([-4.0, 4, 4, 1])
    again = {
        "scale": lambda: volume_of(3 * voxels + 100),
        "order": lambda: volume_of(voxels.transpose(2, 0, 1)[::-1].copy(), turned),
        "margin": lambda: volume_of(np.pad(voxels, 5)),
        "bias": lambda: volume_of(voxels * np.linspace(0.97, 1.03, SHAPE[0], dtype=np.float32)[:, None, None]),
        "noise": lambda: volume_of(voxels + noise),
        "half": lambda: volume_of(np.repeat(voxels, 2, axis=0), np.diag([2.0, 4, 4, 1])),
    }[how]()
    assert pairs(a=volume_of(voxels), b=volume_of(head(2)), c=again) == [("sub-c", "T1w: nearly the head of sub-a")]


def test_a_patients_own_visits_and_small_images_are_passed_over() -> None:
    picture = {"T1w": str(picture_of(volume_of(head(1))))}
    visits = [Case(0, "sub-a", visit, {}, None, None) for visit in ("ses-1", "ses-2")]
    assert list(near_twins(visits, {case.key: picture for case in visits}, set())) == []
    other = Case(0, "sub-b", None, {}, None, None)
    assert len(list(near_twins([*visits, other], {case.key: picture for case in (*visits, other)}, set()))) == 1
    assert list(near_twins([visits[0], other], {"sub-a_ses-1": picture, "sub-b": picture}, {"sub-b"})) == []
    assert picture_of(volume_of(head(1)[:, :, :20])) is None
    assert picture_of(volume_of(np.zeros(SHAPE, np.float32))) is None


def test_a_check_warns(make_site) -> None:
    site = make_site("bids", ["sub-01", "sub-02"])
    for subject, scale in (("sub-01", 1), ("sub-02", 2)):
        for contrast, voxels in (("T1w", head(0)), ("FLAIR", np.where(head(0) > 0, 500 - head(0), 0))):
            site.save(site.image(subject, contrast), scale * voxels, np.diag([4.0, 4, 4, 1]))
        site.save(site.mask(subject), BidsSite.lesions(4, SHAPE), np.diag([4.0, 4, 4, 1]))
    check = check_site(site.config(), Inputs())
    assert [(one.level, one.case) for one in check.findings if one.rule == "near-image"] == [("warn", "sub-02")] * 2


@pytest.mark.slow
def test_real_heads(open_ms: Path) -> None:
    paths = sorted(path for path in open_ms.glob("sub-*/**/anat/*_FLAIR.nii.gz") if path.is_file())
    volumes = [to_volume(open_nifti(path)) for path in paths]
    cases = [Case(0, path.name.split("_")[0], path.name, {}, None, None) for path in paths]
    pictures = {case.key: {"FLAIR": str(picture_of(one))} for case, one in zip(cases, volumes, strict=True)}
    assert list(near_twins(cases, pictures, set())) == []
    image = nib.Nifti1Image(volumes[0].voxels_IJK[::2, ::2, ::2], volumes[0].affine @ np.diag([2, 2, 2, 1]))
    coarse = Case(0, "sub-other", None, {}, None, None)
    found = near_twins([*cases, coarse], pictures | {coarse.key: {"FLAIR": str(picture_of(to_volume(image)))}}, set())
    assert [one.case for one in found] == ["sub-other"]
    assert NEARLY_THE_SAME == 0.99
