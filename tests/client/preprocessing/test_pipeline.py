"""A head whose place is known, from its scanner's grids to the template: skull, bias, noise, oblique and flipped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine
from nibabel.processing import resample_from_to
from numpy.typing import NDArray
from scipy import ndimage

from msfl_client.data.bids import Case
from msfl_client.imaging.brain_signal import signal_of
from msfl_client.imaging.itk_images import LPS, matrix_of, to_itk
from msfl_client.imaging.masks import carry_mask
from msfl_client.imaging.registration import load_template, register_rigid, template_brain
from msfl_client.imaging.resampling import normalise, read_image, resample
from msfl_client.imaging.skull_strip_detection import brain_of, dice, is_brain_alone, recognise
from msfl_client.preprocessing.pipeline import (
    PreprocessedCase,
    even_out,
    in_field,
    moved,
    preprocess_case,
    recognise_case,
)
from msfl_client.preprocessing.qc_measures import measure_quality
from msfl_client.preprocessing.qc_picture import draw
from msfl_client.segmentation.network_input import make_network_input
from msfl_common.config.study import Inputs
from msfl_common.errors import CaseError

INPUTS = Inputs(spacing_mm=2.0)


def turn(degrees: float, axis: int) -> NDArray[np.float64]:
    a, b = [index for index in range(3) if index != axis]
    matrix = np.eye(4)
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    matrix[a, a] = matrix[b, b] = cosine
    matrix[a, b], matrix[b, a] = -sine, sine
    return matrix


def shift(*by_mm: float) -> NDArray[np.float64]:
    matrix = np.eye(4)
    matrix[:3, 3] = by_mm
    return matrix


# A smaller head than the template, tilted and off centre; the FLAIR moved a little after the T1w.
TO_MNI = shift(2, -6, 9) @ turn(9, 0) @ turn(-4, 2) @ np.diag([1.12, 1.08, 1.1, 1])
MOVED = shift(1.5, -1.0, 2.0) @ turn(2.0, 1)  # millimetres of the FLAIR's file to those of the T1w's


@dataclass(frozen=True)
class Head:
    case: Case
    lesions: nib.Nifti1Image


def whole_head() -> tuple[nib.Nifti1Image, nib.Nifti1Image, nib.Nifti1Image]:
    """T1w, FLAIR and lesions around the template's brain, at 1 mm in its space, in scalp and skull."""
    template = load_template(1.0)
    t1_DHW, brain_DHW = np.asarray(template.dataobj), template_brain(1.0)
    far_mm = ndimage.distance_transform_edt(~brain_DHW)
    scalp_DHW = (far_mm > 7) & (far_mm < 14)
    lesions_DHW = np.zeros(brain_DHW.shape, dtype=bool)
    for centre, radius in (((28, -20, 28), 6), ((-28, -25, 27), 4), ((25, 20, 24), 3), ((-26, 10, 30), 2)):
        index = np.rint(apply_affine(np.linalg.inv(template.affine), centre)).astype(int)
        grid = np.meshgrid(
            *(np.arange(size) - place for size, place in zip(t1_DHW.shape, index, strict=True)), indexing="ij"
        )
        lesions_DHW |= sum(axis.astype(float) ** 2 for axis in grid) <= radius**2
    flair_DHW = np.where(t1_DHW > 0.35, 1.2 - 0.55 * t1_DHW, 0.25) * brain_DHW
    flair_DHW[lesions_DHW] = 1.6
    images = []
    for voxels_DHW in (t1_DHW, flair_DHW):
        voxels_DHW = voxels_DHW + scalp_DHW * 1.0 + ((far_mm > 0) & (far_mm <= 7)) * 0.08
        images.append(nib.Nifti1Image(voxels_DHW.astype(np.float32), template.affine))
    return images[0], images[1], nib.Nifti1Image(lesions_DHW.astype(np.float32), template.affine)


def scan(
    image: nib.Nifti1Image, to_mni: NDArray[np.float64], affine: NDArray[np.float64], shape: tuple[int, int, int]
) -> NDArray[np.float32]:
    """What a scanner with this grid would see of it: thick slices, a bias field, noise."""
    placed = nib.Nifti1Image(np.asarray(image.dataobj), np.linalg.inv(to_mni) @ image.affine)
    seen = np.asarray(resample_from_to(placed, (shape, affine), order=1).dataobj)
    axes = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij")
    noise = np.random.default_rng(0).normal(0, 0.02, (2, *shape))
    return (
        np.hypot(seen * np.exp(0.7 * axes[1] * axes[0] + 0.4 * axes[2]) + noise[0], noise[1]).astype(np.float32) * 700
    )


def centred(
    spacing_mm: tuple[float, float, float], shape: tuple[int, int, int], turned: NDArray
) -> NDArray[np.float64]:
    """A grid around the head, its first axis running to the left as most scanners write it."""
    affine = turned @ np.diag([-spacing_mm[0], *spacing_mm[1:], 1.0])
    affine[:3, 3] = np.array([0, -14, 4]) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Head:
    folder = tmp_path_factory.mktemp("head")
    t1, flair, lesions = whole_head()
    t1_grid = centred((1.3, 1.3, 2.0), (160, 180, 92), turn(3, 0))
    flair_grid = centred((1.2, 1.2, 3.0), (176, 200, 62), turn(-8, 0))
    for name, image, to_mni, affine, shape in (
        ("T1w", t1, TO_MNI, t1_grid, (160, 180, 92)),
        ("FLAIR", flair, TO_MNI @ MOVED, flair_grid, (176, 200, 62)),
    ):
        file = nib.Nifti1Image(scan(image, to_mni, affine, shape).astype(np.int16), affine)
        file.set_qform(affine @ shift(5, 0, 0), 1)  # the sform is the one to believe
        file.header["descrip"] = b"Quibble 1961"
        nib.save(file, folder / f"{name}.nii.gz")
    placed = nib.Nifti1Image(np.asarray(lesions.dataobj), np.linalg.inv(TO_MNI @ MOVED) @ lesions.affine)
    drawn = np.asarray(resample_from_to(placed, ((176, 200, 62), flair_grid), order=1).dataobj) >= 0.5
    nib.save(nib.Nifti1Image(drawn.astype(np.uint8), flair_grid), folder / "mask.nii.gz")
    images = {"T1w": folder / "T1w.nii.gz", "FLAIR": folder / "FLAIR.nii.gz"}
    return Head(Case(0, "sub-01", None, images, folder / "mask.nii.gz", None), lesions)


@pytest.fixture(scope="module")
def done(head: Head) -> PreprocessedCase:
    return preprocess_case(head.case, INPUTS)


@pytest.mark.slow
def test_a_whole_head_is_found_where_it_lies(done: PreprocessedCase) -> None:
    assert done.found == "none"
    inside = np.argwhere(template_brain(4.0))[::50]
    there = apply_affine(load_template(4.0).affine, inside)
    for contrast, truth in (("T1w", TO_MNI), ("FLAIR", TO_MNI @ MOVED)):
        found = apply_affine(done.native_to_mni(contrast), apply_affine(np.linalg.inv(truth), there))
        off_mm = np.linalg.norm(found - there, axis=1)
        assert off_mm.mean() < 1.0, contrast
        assert off_mm.max() < 3.0, contrast


@pytest.mark.slow
def test_only_the_brain_is_left_bright_and_positive(done: PreprocessedCase) -> None:
    case = done.case
    assert dice(case.brain_DHW, template_brain(2.0)) > 0.95
    for image_DHW in case.images_DHW.values():
        assert image_DHW.dtype == np.float32
        assert image_DHW.shape == load_template(2.0).shape
        assert (image_DHW[~case.brain_DHW] == 0).all()
        assert image_DHW[case.brain_DHW].min() >= 1
        assert np.median(image_DHW[case.brain_DHW]) == pytest.approx(1000, abs=2)
    assert np.allclose(case.affine, load_template(2.0).affine)
    assert done.case.voxel_ml == pytest.approx(8 / np.linalg.det(TO_MNI[:3, :3]) / 1000, rel=0.03)


@pytest.mark.slow
def test_lesions_arrive_with_their_image(head: Head, done: PreprocessedCase) -> None:
    truth_DHW = resample(head.lesions, (load_template(2.0).shape, load_template(2.0).affine)) >= 0.5
    assert dice(done.case.lesion_DHW, truth_DHW) > 0.7
    assert ndimage.label(done.case.lesion_DHW)[1] == 4
    assert done.case.images_DHW["FLAIR"][done.case.lesion_DHW].mean() > 1.15 * 1000


@pytest.mark.slow
def test_lesions_go_back_to_their_image(head: Head, done: PreprocessedCase) -> None:
    drawn = nib.load(head.case.mask)
    there = nib.Nifti1Image(done.case.lesion_DHW.astype(np.float32), done.case.affine)
    back = carry_mask(moved(there, np.linalg.inv(done.native_to_mni("FLAIR"))), (drawn.shape, drawn.affine))
    assert dice(back, np.asarray(drawn.dataobj) > 0) > 0.75  # through 2 mm; lesions of 2 to 6 mm radius


@pytest.mark.slow
def test_brightness_is_evened_out(head: Head, done: PreprocessedCase) -> None:
    template = load_template(2.0)
    scanned = moved(read_image(head.case.images["T1w"]), done.native_to_mni("T1w"))
    truth = np.asarray(template.dataobj)
    brain_DHW = done.case.brain_DHW & (truth > 0.6)
    before = resample(scanned, (template.shape, template.affine))[brain_DHW] / truth[brain_DHW]
    after = done.case.images_DHW["T1w"][brain_DHW] / truth[brain_DHW]
    assert after.std() / after.mean() < 0.5 * before.std() / before.mean()


@pytest.mark.slow
def test_figures_and_picture(done: PreprocessedCase) -> None:
    quality = measure_quality(done)
    assert quality.brain_ml == pytest.approx(1883 / np.linalg.det(TO_MNI[:3, :3]), rel=0.06)
    assert quality.coverage > 0.93
    assert quality.white_to_grey["T1w"] > 1 > quality.white_to_grey["FLAIR"]
    assert quality.similarity.keys() == {"FLAIR"}
    assert all(10 < value < 200 for value in quality.snr.values())
    picture = draw(done, "sub-01")
    assert picture.startswith(b"\x89PNG")
    assert len(picture) < 250_000
    assert picture == draw(done, "sub-01")


@pytest.mark.slow
def test_the_same_images_give_the_same_matrix(head: Head, done: PreprocessedCase) -> None:
    fixed, moving = read_image(head.case.images["T1w"]), read_image(head.case.images["FLAIR"])
    again = register_rigid(moving, fixed, done.native_brains["T1w"])
    assert np.array_equal(again.matrix, done.to_anchor["FLAIR"].matrix)
    assert again.similarity == done.to_anchor["FLAIR"].similarity


@pytest.mark.slow
def test_an_extracted_brain_is_neither_cut_nor_flattened_again(head: Head, done: PreprocessedCase, tmp_path) -> None:
    """Brains in the scanner's space are only placed; brains on the template are taken as they are."""
    template = load_template(2.0)
    images = {}
    for name, to_mni in (("own", np.diag([1.1, 1.1, 1.1, 1.0])), ("mni", np.eye(4))):
        voxels_DHW = (1000 * np.asarray(template.dataobj)).astype(np.int16)
        nib.save(nib.Nifti1Image(voxels_DHW, np.linalg.inv(to_mni) @ template.affine), tmp_path / f"{name}.nii.gz")
        images[name] = Case(0, "sub-01", None, {"T1w": tmp_path / f"{name}.nii.gz"}, None, None)
    inputs = Inputs(contrasts=("T1w",), spacing_mm=2.0)
    own = preprocess_case(images["own"], inputs)
    assert own.found == "brain"
    assert np.linalg.det(own.case.native_to_mni[:3, :3]) == pytest.approx(1.331, rel=0.02)
    there = preprocess_case(images["mni"], inputs)
    assert there.found == "common-space"
    assert np.array_equal(there.case.native_to_mni, np.eye(4))
    brain_DHW = there.case.brain_DHW
    scale = np.median(np.asarray(template.dataobj)[brain_DHW])
    expected = 1000 * np.asarray(template.dataobj)[brain_DHW] / scale
    assert np.abs(there.case.images_DHW["T1w"][brain_DHW] - expected).max() < 5
    assert recognise({"T1w": read_image(head.case.images["T1w"])}) == "none"


@pytest.mark.slow
def test_sessions_of_a_patient_are_treated_alike(tmp_path) -> None:
    template = load_template(4.0)
    voxels = (1000 * np.asarray(template.dataobj)).astype(np.int16)
    cases = []
    for visit, scale in (("ses-1", 1.0), ("ses-2", 1.0), ("ses-3", 0.8)):
        path = tmp_path / f"{visit}.nii.gz"
        nib.save(nib.Nifti1Image(voxels, np.diag([scale] * 3 + [1]) @ template.affine), path)
        cases.append(Case(0, "sub-01", visit, {"T1w": path}, None, None))
    inputs = Inputs(contrasts=("T1w",), spacing_mm=4.0)
    assert [recognise_case(case, inputs) for case in cases] == ["common-space", "common-space", "brain"]
    assert [recognise_case(case, inputs, cases[:2]) for case in cases[:2]] == ["common-space"] * 2
    assert [recognise_case(case, inputs, cases) for case in cases] == ["brain"] * 3
    (tmp_path / "ses-3.nii.gz").write_text("no image")
    assert recognise_case(cases[0], inputs, cases) == "common-space"


def test_a_declared_brain_may_have_an_uneven_background() -> None:
    template, brain_DHW = load_template(4.0), template_brain(4.0)
    noise = np.random.default_rng(0).uniform(-5, 5, template.shape)
    voxels = np.where(brain_DHW, 1000 * np.asarray(template.dataobj), 0) + noise
    image = nib.Nifti1Image(voxels.astype(np.float32), template.affine)
    assert recognise({"T1w": image}) == "none"
    assert dice(brain_of(image), brain_DHW) > 0.99


def test_a_brain_before_next_to_nothing_is_no_head() -> None:
    """As Fourier's transform leaves it, or a lossy format."""
    template, brain_DHW = load_template(4.0), template_brain(4.0)
    noise = np.random.default_rng(0).normal(-0.5, 0.5, template.shape)
    voxels = np.where(brain_DHW, 1000 * np.asarray(template.dataobj), 0) + noise
    image = nib.Nifti1Image(voxels.astype(np.float32), template.affine)
    assert recognise({"T1w": image}) == "common-space"
    assert dice(brain_of(image), brain_DHW) > 0.99
    assert dice(np.asarray(signal_of(image).image.dataobj) > 0, brain_DHW) > 0.99


def test_a_head_is_told_from_a_brain_by_size_and_by_where_it_is_cut() -> None:
    axes = np.meshgrid(*(np.linspace(-1, 1, 50),) * 3, indexing="ij")
    ball = (sum(axis**2 for axis in axes) < 0.85).astype(np.float32)
    litre = ball.sum() / 1e6  # at 1 mm
    for litres, cut, expected in ((2.4, 0, True), (2.9, 0, False), (2.4, 12, False), (1.5, 12, True)):
        voxels = ball[:, :, cut:]
        size_mm = (litres / litre * ball.sum() / voxels.sum()) ** (1 / 3)
        assert is_brain_alone(voxels, np.diag([size_mm, size_mm, size_mm, 1])) is expected, (litres, cut)


def test_quantities_are_not_evened_out() -> None:
    """N4 would change what a map of FA measures, as it changes the same image by the name of T1w."""
    template = load_template(4.0)
    brain_DHW = template_brain(4.0)
    ramp_DHW = np.asarray(template.dataobj) * np.linspace(0.6, 1.6, template.shape[0])[:, None, None]
    image = nib.Nifti1Image(ramp_DHW.astype(np.float32), template.affine)
    even = even_out({"T1w": image, "FA": image}, {"T1w": brain_DHW, "FA": brain_DHW})
    assert even["FA"] is image
    before, after = (np.asarray(one.dataobj)[brain_DHW] for one in (image, even["T1w"]))
    assert np.abs(after / after.mean() - before / before.mean()).max() > 0.1


@pytest.mark.slow
def test_what_is_no_brain_is_refused(tmp_path: Path) -> None:
    axes = np.meshgrid(*(np.linspace(-1, 1, size) for size in (60, 60, 60)), indexing="ij")
    stick = (np.hypot(axes[0], axes[1]) < 0.15).astype(np.float32) * 100
    nib.save(nib.Nifti1Image(stick, np.diag([4.0, 4, 4, 1])), tmp_path / "stick.nii.gz")
    case = Case(0, "sub-01", None, {"T1w": tmp_path / "stick.nii.gz"}, None, None)
    with pytest.raises(CaseError, match=r"does not fit the template|could not be registered"):
        preprocess_case(case, Inputs(contrasts=("T1w",)))


def test_an_image_without_brightness_in_the_brain_is_refused(tmp_path: Path) -> None:
    template = load_template(2.0)
    voxels = np.asarray(template.dataobj)
    nib.save(nib.Nifti1Image(np.where(voxels > 0, voxels - 2, 0), template.affine), tmp_path / "scores.nii.gz")
    case = Case(0, "sub-01", None, {"T1w": tmp_path / "scores.nii.gz"}, None, None)
    with pytest.raises(CaseError, match="found one inverted"):
        preprocess_case(case, Inputs(contrasts=("T1w",)))


def test_a_mask_keeps_its_volume_and_its_smallest_lesions() -> None:
    fine = load_template(1.0)
    mask = np.zeros(fine.shape, np.float32)
    corners = [(60, 80, 90), (100, 120, 100), (120, 90, 80)]
    for (i, j, k), size in zip(corners, (2, 3, 9), strict=True):
        mask[i : i + size, j : j + size, k : k + size] = 1
    to_mni = TO_MNI @ np.linalg.inv(shift(2, -6, 9))
    grid = (load_template(2.0).shape, load_template(2.0).affine)
    there = carry_mask(moved(nib.Nifti1Image(mask, fine.affine), to_mni), grid)
    assert ndimage.label(there)[1] == 3
    assert there.sum() * 8 == pytest.approx(mask.sum() * np.linalg.det(to_mni[:3, :3]), rel=0.03)
    assert not carry_mask(nib.Nifti1Image(mask * 0, fine.affine), grid).any()
    same = carry_mask(nib.Nifti1Image(mask, fine.affine), (fine.shape, fine.affine))
    assert np.array_equal(same, mask > 0)


def test_a_field_of_view_ends_half_a_voxel_beyond_the_last_centre() -> None:
    image = nib.Nifti1Image(np.ones((4, 5, 6), np.float32), np.diag([2.0, 2, 2, 1]))
    inside = in_field(image, shift(1, 0, 0), ((12, 12, 14), np.eye(4)))
    assert np.argwhere(inside).min(axis=0).tolist() == [0, 0, 0]
    assert np.argwhere(inside).max(axis=0).tolist() == [8, 9, 11]


def test_itk_puts_voxels_where_nibabel_does() -> None:
    affine = centred((1.0, 2.0, 3.0), (5, 6, 7), turn(20, 0) @ turn(-30, 2))
    image = to_itk(np.zeros((5, 6, 7), np.float32), affine)
    for index in ((0, 0, 0), (4, 0, 6), (1, 5, 3)):
        lps = image.TransformIndexToPhysicalPoint(index)
        assert np.allclose(apply_affine(LPS, lps), apply_affine(affine, index), atol=1e-4)


def test_itk_transforms_become_matrices() -> None:
    import SimpleITK as sitk

    transform = sitk.Euler3DTransform((10.0, -20.0, 30.0), 0.1, -0.2, 0.3, (1.0, 2.0, 3.0))
    point = (12.0, -7.0, 40.0)
    moved_point = apply_affine(LPS, transform.TransformPoint(apply_affine(LPS, point).tolist()))
    assert np.allclose(apply_affine(matrix_of(transform), point), moved_point)


@pytest.mark.slow
def test_a_case_in_the_common_space_is_not_resampled_again(tmp_path: Path) -> None:
    for spacing_mm in (1.0, 1.7, 2.0, 3.0):
        template = load_template(spacing_mm)
        nib.save(nib.Nifti1Image(np.asarray(template.dataobj), template.affine), tmp_path / "t.nii.gz")
        case = Case(0, "sub-01", None, {"T1w": tmp_path / "t.nii.gz"}, None, None)
        prepared = make_network_input(case, Inputs(contrasts=("T1w",), spacing_mm=spacing_mm))
        voxels = np.asarray(template.dataobj, dtype=np.float32)
        box = ndimage.find_objects((voxels > 0).astype(np.uint8))[0]
        assert np.array_equal(prepared.image_CDHW[0], normalise(voxels[box])), spacing_mm
