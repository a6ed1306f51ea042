"""Any affine change of intensities: the same brain and brightness in training, check, features, preprocessing and
prediction, or a refusal by name."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from tests.brains import crooked_template

from msfl_client.classification.visit_volumes import cached_volume, load_volume
from msfl_client.data.bids import Case
from msfl_client.data.checks import check_case
from msfl_client.features.extract import case_features
from msfl_client.imaging.brain_signal import brain_signal, seems_inverted, signal_of
from msfl_client.imaging.registration import load_template, template_brain
from msfl_client.preprocessing.pipeline import preprocess_case
from msfl_client.segmentation.network_input import make_network_input
from msfl_common.config.classification import DeepModel
from msfl_common.config.study import Inputs
from msfl_common.errors import CaseError

Voxels = NDArray[np.float32]
Change = Callable[[Voxels], Voxels]
CHANGED = (("FLAIR",), ("T1w",), ("T1w", "FLAIR"))


def z_scored(voxels: Voxels, background: float | None) -> Voxels:
    brain = voxels != 0
    scored = (voxels - voxels[brain].mean()) / voxels[brain].std()
    return np.where(brain, scored, scored[brain].min() if background is None else background).astype(np.float32)


AFFINE_CHANGES: dict[str, Change] = {
    "shift": lambda voxels: voxels + 100,
    "shift below 0": lambda voxels: voxels - 1024,
    "scale": lambda voxels: voxels * np.float32(0.0037),
    "scale and shift": lambda voxels: voxels * np.float32(13.7) - 77,
    "float": lambda voxels: (voxels / voxels.max()).astype(np.float64),
}
BACKGROUNDS: dict[str, Change] = {
    "z-score, 0": lambda voxels: z_scored(voxels, 0),
    "z-score, far below": lambda voxels: z_scored(voxels, -1000),
    "z-score and shift, 0": lambda voxels: np.where(voxels != 0, z_scored(voxels, 0) + 50, 0),
    "z-score, NaN": lambda voxels: z_scored(voxels, np.nan),
}
AT_THE_MINIMUM: dict[str, Change] = {"z-score, minimum": lambda voxels: z_scored(voxels, None)}
INVERTED: dict[str, Change] = {
    "sign": lambda voxels: -voxels,
    "sign and shift": lambda voxels: 500 - voxels,
    "sign, background 0": lambda voxels: np.where(voxels != 0, voxels.max() + 5 - voxels, 0),
    "sign, z-score, 0": lambda voxels: -z_scored(voxels, 0),
}


@pytest.fixture
def case(site) -> Case:
    return site.cases()["sub-01"]


def change(case: Case, contrasts: tuple[str, ...], how: Change) -> None:
    for contrast in contrasts:
        image = nib.load(case.images[contrast])
        voxels = np.asarray(image.dataobj, np.float32)
        nib.save(nib.Nifti1Image(how(voxels), image.affine), case.images[contrast])


@pytest.mark.parametrize("contrasts", CHANGED, ids="+".join)
@pytest.mark.parametrize("name", [*AFFINE_CHANGES, *BACKGROUNDS, *AT_THE_MINIMUM])
def test_the_network_sees_the_same(name: str, contrasts: tuple[str, ...], case: Case) -> None:
    inputs = Inputs(spacing_mm=4.0)
    plain = make_network_input(case, inputs).image_CDHW
    change(case, contrasts, (AFFINE_CHANGES | BACKGROUNDS | AT_THE_MINIMUM)[name])
    assert not [finding for finding in check_case(case, inputs, needs_mask=True) if finding.level == "fail"]
    changed = make_network_input(case, inputs).image_CDHW
    assert changed.shape == plain.shape
    apart = np.abs(changed - plain)
    if name in AFFINE_CHANGES:
        assert apart.max() < 1e-3
    else:  # what lay between brain and background is not known: its rim differs a little
        assert apart.mean() < 0.15
        assert np.corrcoef(changed.ravel(), plain.ravel())[0, 1] > 0.98


@pytest.mark.parametrize("contrasts", CHANGED, ids="+".join)
@pytest.mark.parametrize("name", [*AFFINE_CHANGES, *BACKGROUNDS])
def test_a_deep_model_sees_the_same_or_refuses(
    name: str, contrasts: tuple[str, ...], case: Case, tmp_path: Path
) -> None:
    model = DeepModel(kind="resnet3d", slices=16, pixels=16)
    plain = load_volume(cached_volume(case, Inputs(), model, tmp_path / "plain"))
    change(case, contrasts, (AFFINE_CHANGES | BACKGROUNDS)[name])
    if name in BACKGROUNDS:
        with pytest.raises(CaseError, match=f"{contrasts[0]}.*: its background is none of a scan's"):
            cached_volume(case, Inputs(), model, tmp_path / "changed")
        return
    changed = load_volume(cached_volume(case, Inputs(), model, tmp_path / "changed"))
    assert np.abs(changed - plain).max() <= 1


@pytest.mark.parametrize("contrast", ["T1w", "FLAIR"])
@pytest.mark.parametrize("name", INVERTED)
def test_an_inverted_image_is_refused_by_name(name: str, contrast: str, case: Case) -> None:
    change(case, (contrast,), INVERTED[name])
    failed = [finding for finding in check_case(case, Inputs(), needs_mask=True) if finding.level == "fail"]
    assert [finding.rule for finding in failed] == ["inverted"]
    assert failed[0].text.startswith(f"{contrast}: ")


def test_what_the_check_says_of_brightness(case: Case) -> None:
    def said() -> list[str]:
        return [finding.text for finding in check_case(case, Inputs(), needs_mask=True) if finding.level == "warn"]

    assert said() == []
    change(case, ("FLAIR",), lambda voxels: voxels + 100)
    assert said() == ["FLAIR: its background is 100, not 0; it is taken for black"]
    change(case, ("T1w",), lambda voxels: z_scored(voxels, 0))
    assert "T1w: its background is none of a scan's" in said()[0]


def test_a_plain_image_is_its_own_signal(site) -> None:
    image = nib.load(site.image("sub-01", "FLAIR"))
    signal = brain_signal(image)
    assert np.array_equal(np.asarray(signal.image.dataobj), np.asarray(image.dataobj))
    assert signal.knows_black


def test_a_bright_fluid_has_a_bright_rim(site) -> None:
    t2w = nib.load(site.image("sub-01", "T1w"))
    voxels = np.asarray(t2w.dataobj)
    bright = nib.Nifti1Image(np.where(voxels > 0, voxels.max() + 5 - voxels, 0), t2w.affine)
    assert not seems_inverted(bright, "bright")
    assert seems_inverted(t2w, "bright")


def head(noise: float = 3.0) -> nib.Nifti1Image:
    """A whole head of some four litres in noisy air."""
    axes = np.meshgrid(*(np.linspace(-1, 1, size) for size in (32, 36, 34)), indexing="ij")
    inside = sum(axis**2 for axis in axes) < 0.7
    air = np.abs(np.random.default_rng(0).normal(0, noise, inside.shape))
    return nib.Nifti1Image((inside * 200 + air).astype(np.float32), np.diag([6.0, 6.0, 6.0, 1.0]))


@pytest.mark.parametrize("how", AFFINE_CHANGES.values(), ids=list(AFFINE_CHANGES))
def test_a_whole_head_has_the_same_signal(how: Change) -> None:
    plain = np.asarray(signal_of(head()).image.dataobj)
    changed = np.asarray(signal_of(nib.Nifti1Image(how(np.asarray(head().dataobj)), head().affine)).image.dataobj)
    assert np.allclose(changed / changed.max(), plain / plain.max(), atol=1e-4)


def test_an_inverted_head_is_refused() -> None:
    with pytest.raises(CaseError, match="head brighter than air, found one inverted"):
        signal_of(nib.Nifti1Image(-np.asarray(head().dataobj), head().affine))


@pytest.fixture
def on_template(tmp_path: Path) -> Case:
    """A brain on the template's grid, whose contrasts are made of it."""
    template = load_template(4.0)
    voxels, brain = crooked_template(4.0), template_brain(4.0)
    scaled = voxels / voxels.max()
    rim_and_fluid = np.where(brain, 20 + 900 * scaled, 0)
    paths = {contrast: tmp_path / "anat" / f"{contrast}.nii" for contrast in ("T1w", "FLAIR")}
    (tmp_path / "anat").mkdir()
    for path in paths.values():
        nib.save(nib.Nifti1Image(rim_and_fluid.astype(np.float32), template.affine), path)
    return Case(0, "sub-01", None, paths, None, None)


@pytest.mark.slow
def test_preprocessing_and_features_are_the_same(on_template: Case, tmp_path: Path) -> None:
    inputs = Inputs(spacing_mm=4.0)
    plain_files = shutil.copytree(on_template.images["T1w"].parent, tmp_path / "plain")
    plain = preprocess_case(on_template, inputs, "common-space").case
    expected = case_features(plain)
    for how, knows_black in (
        (AFFINE_CHANGES["scale and shift"], True),
        (AFFINE_CHANGES["float"], True),
        (BACKGROUNDS["z-score, 0"], False),
    ):
        shutil.copytree(plain_files, on_template.images["T1w"].parent, dirs_exist_ok=True)
        change(on_template, ("T1w", "FLAIR"), how)
        changed = preprocess_case(on_template, inputs, "common-space").case
        assert np.array_equal(changed.brain_DHW, plain.brain_DHW)
        found = case_features(changed)
        signals = {name for name in expected if name.startswith(("t1w_", "flair_"))}
        assert signals
        assert {*found} == ({*expected} if knows_black else {*expected} - signals)
        for name, value in found.items():
            assert value == pytest.approx(expected[name], rel=0.01, abs=0.01), name
