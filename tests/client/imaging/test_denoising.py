"""Noise of a known size put onto a brain, and taken out again."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from tests.brains import brain

from msfl_client.data.aligned_images import read_aligned
from msfl_client.data.bids import Case
from msfl_client.imaging.denoising import denoised
from msfl_client.segmentation.network_input import cached_path, make_network_input
from msfl_common.config.study import Inputs

DENOISING = "anisotropic-diffusion"
NOISE = 50.0  # of about 1000 in white matter


def with_noise(clean: nib.Nifti1Image, noise: float = NOISE) -> nib.Nifti1Image:
    """Rician noise inside the brain."""
    voxels_DHW = np.asarray(clean.dataobj)
    real, imaginary = np.random.default_rng(0).normal(0, noise, (2, *voxels_DHW.shape))
    seen_DHW = np.hypot(voxels_DHW + real, imaginary) * (voxels_DHW > 0)
    return nib.Nifti1Image(seen_DHW.astype(np.float32), clean.affine)


@pytest.fixture(scope="module")
def seen() -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """A FLAIR without noise, with noise, and denoised."""
    clean = brain("FLAIR")
    noisy = with_noise(clean)
    done = denoised({"FLAIR": noisy}, DENOISING)["FLAIR"]
    assert np.array_equal(done.affine, clean.affine)
    return tuple(np.asarray(image.dataobj) for image in (clean, noisy, done))  # type: ignore[return-value]


def test_noise_goes_and_lesions_stay(seen) -> None:
    clean, noisy, done = seen
    assert done.dtype == np.float32
    inside = ndimage.binary_erosion(clean > 0, iterations=2)
    lesions, flat = inside & (clean > 1300), inside & (ndimage.gaussian_gradient_magnitude(clean, 1) < 20)
    assert lesions.sum() > 200
    assert flat.sum() > 2000
    assert np.std((done - clean)[flat]) < 0.7 * np.std((noisy - clean)[flat])
    contrast = [float(image[lesions].mean() - np.median(image[inside])) for image in (clean, done)]
    assert contrast[1] == pytest.approx(contrast[0], rel=0.1)


def test_what_is_no_brain_stays_empty_and_what_is_stays_signal(seen) -> None:
    _, noisy, done = seen
    assert np.array_equal(done > 0, noisy > 0)
    wider = nib.Nifti1Image(np.pad(noisy, 9), np.eye(4))
    padded = np.asarray(denoised({"FLAIR": wider}, DENOISING)["FLAIR"].dataobj)
    alone = np.asarray(denoised({"FLAIR": nib.Nifti1Image(noisy, np.eye(4))}, DENOISING)["FLAIR"].dataobj)
    assert np.array_equal(padded[9:-9, 9:-9, 9:-9], alone)


def test_it_is_off_by_default_and_leaves_quantities_alone() -> None:
    images = {"FA": brain("T1w"), "T1w": brain("T1w")}
    assert denoised(images, "none") is images
    assert denoised({"FA": images["FA"]}, DENOISING)["FA"] is images["FA"]
    assert "denoising" not in Inputs().model_dump(mode="json")


def test_training_sees_it_and_keeps_it_apart(site, tmp_path) -> None:
    case: Case = site.cases()["sub-01"]
    for contrast in ("T1w", "FLAIR"):
        nib.save(with_noise(brain(contrast, spacing_mm=(4.0, 4.0, 4.0))), case.images[contrast])
    nib.save(
        nib.Nifti1Image(
            np.zeros(nib.load(case.images["FLAIR"]).shape, np.uint8), nib.load(case.images["FLAIR"]).affine
        ),
        case.mask,
    )
    plain, asked = Inputs(spacing_mm=4.0), Inputs(spacing_mm=4.0, denoising=DENOISING)
    assert cached_path(case, plain, tmp_path) != cached_path(case, asked, tmp_path)
    images = [make_network_input(case, inputs).image_CDHW for inputs in (plain, asked)]
    assert images[0].shape == images[1].shape
    assert not np.array_equal(*images)
    read = read_aligned(case, ("T1w", "FLAIR"), "FLAIR", DENOISING)
    by_hand = denoised(read_aligned(case, ("T1w", "FLAIR"), "FLAIR").images, DENOISING)
    for contrast, image in by_hand.items():
        assert np.array_equal(np.asarray(image.dataobj), np.asarray(read.images[contrast].dataobj))
