"""Augmentation of whole batches: by seed alone, and each effect as MONAI has it for one patch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from monai.transforms import AdjustContrast, Affine, RandBiasField, RandHistogramShift

from msfl_client.segmentation.device_augmentation import Draws, augment_batch, change_intensities, draw, move
from msfl_common.config.study import Augmentation
from msfl_common.config.training import AXES

NONE = Augmentation(flip=0, affine=0, gamma=0, bias=0, noise=0, low_resolution=0)
ALL = Augmentation(flip=0.5, affine=1, gamma=1, bias=1, noise=1, low_resolution=1, flip_axes=AXES)
IDENTITY = draw(NONE, 0, 2)


def batch(count: int = 3, size: int = 12) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images with a dark border, their floors, and labels."""
    image = torch.rand(count, 2, size, size, size, generator=torch.Generator().manual_seed(0)) + 0.5
    image[..., :3] = -1.0
    return image, image.amin((2, 3, 4), keepdim=True), (image[:, :1] > 1.4).float()


def smooth(size: int = 16) -> torch.Tensor:
    """image_BCDHW of one patch, one contrast of which rises along each axis."""
    ramp = torch.linspace(0, 1, size)
    return torch.stack([ramp[:, None, None] + ramp[:, None] ** 2 + ramp**3, torch.ones(size, size, size)])[None]


def test_what_becomes_of_a_patch_depends_on_its_seed_alone() -> None:
    image, floor, label = batch()
    together = augment_batch(ALL, image, floor, label, (5, 6, 7))
    alone = augment_batch(ALL, image[1:2], floor[1:2], label[1:2], (6,))
    assert torch.allclose(together[0][1], alone[0][0], atol=1e-5)
    assert torch.equal(together[1][1], alone[1][0])
    again = augment_batch(ALL, image, floor, label, (5, 6, 7))
    assert torch.equal(together[0], again[0])
    other = augment_batch(ALL, image, floor, label, (5, 8, 7))
    assert not torch.allclose(together[0][1], other[0][1], atol=1e-2)


def test_without_augmentation_a_patch_stays_as_it_is() -> None:
    image, floor, label = batch()
    before = image.clone()
    found = augment_batch(NONE, image, floor, label, (1, 2, 3))
    assert torch.allclose(found[0], before, atol=1e-5)
    assert torch.equal(found[1], label)
    augment_batch(ALL, image, floor, label, (1, 2, 3))
    assert torch.equal(image, before)  # what it was made of is not changed


def test_the_background_stays_dark_and_labels_stay_binary() -> None:
    image, floor, label = batch()
    settings = ALL.model_copy(update={"affine": 0.0, "flip": 0.0})
    changed, labels = augment_batch(settings, image, floor, label, (1, 2, 3))
    dark = image == floor
    assert torch.equal(changed[dark], image[dark])
    assert torch.isfinite(changed).all()
    turned = augment_batch(ALL, image, floor, label, (1, 2, 3))[1]
    assert set(turned.unique().tolist()) | set(labels.unique().tolist()) == {0.0, 1.0}


def test_mirroring_moves_images_and_labels_together() -> None:
    image, _, label = batch()
    draws = [replace(IDENTITY, flips=flips) for flips in ((), (0,), (0, 2))]
    moved, labels = move(image, label, draws)
    for number, axes in enumerate(((), (1,), (1, 3))):
        assert torch.equal(moved[number], image[number].flip(axes))
        assert torch.equal(labels[number], label[number].flip(axes))


def test_turns_are_monais() -> None:
    image = smooth()
    one = next(d for d in (draw(ALL, seed, 2) for seed in range(9)) if d.affine is not None)
    moved, _ = move(image, torch.zeros(1, 1, 16, 16, 16), [replace(one, flips=())])
    matrix = np.eye(4)
    matrix[:3, :3] = one.affine
    monai, _ = Affine(affine=torch.as_tensor(matrix), padding_mode="zeros", image_only=False)(image[0])
    assert torch.allclose(moved[0], torch.as_tensor(np.asarray(monai)), atol=1e-4)


def changed_by(**drawn: object) -> torch.Tensor:
    return change_intensities(smooth(), [replace(IDENTITY, **drawn)])[0, 0]  # type: ignore[arg-type]


def test_curves_gammas_and_fields_are_monais() -> None:
    image = smooth()[0, :1]
    curve = np.array([0, 0.1, 0.5, 0.55, 1.0], dtype=np.float32)
    shift = RandHistogramShift()
    low, high = float(image.min()), float(image.max())
    scaled = [torch.as_tensor(points * (high - low) + low) for points in (np.linspace(0, 1, 5), curve)]
    bent = shift.interp(image.double(), *(one.double() for one in scaled))
    straight = np.array([0, 1], dtype=np.float32)
    assert torch.allclose(changed_by(curves=(curve, straight)).double(), bent[0], atol=1e-5)
    assert torch.allclose(changed_by(gammas=(0.8, 1.0)), AdjustContrast(0.8)(image)[0], atol=1e-5)
    values = np.random.default_rng(0).uniform(0, 0.15, 20).astype(np.float32)
    field = RandBiasField()._generate_random_field((16, 16, 16), 3, values.tolist())
    places = [(i, j, k) for i in range(4) for j in range(4 - i) for k in range(4 - i - j)]
    bias = np.zeros((2, 4, 4, 4), np.float32)
    for place, value in zip(places, values, strict=True):
        bias[(0, *place)] = value
    assert torch.allclose(changed_by(bias_CNNN=bias), image[0] * torch.as_tensor(np.exp(field)).float(), rtol=1e-3)


def test_noise_and_low_resolution_are_of_the_contrast_that_they_were_drawn_for() -> None:
    image = smooth()
    noisy = change_intensities(image, [replace(IDENTITY, noise_sd=(0.0, 0.2))])
    assert torch.allclose(noisy[0, 0], image[0, 0], atol=1e-6)
    assert float((noisy - image)[0, 1].std()) == pytest.approx(0.2, rel=0.1)
    coarse = change_intensities(image, [replace(IDENTITY, zooms=(0.5, 1.0))])
    assert torch.equal(coarse[0, 1], image[0, 1])
    assert 0.001 < float((coarse - image)[0, 0].abs().mean()) < 0.2


def test_each_effect_comes_as_often_as_the_study_says() -> None:
    draws = [draw(Augmentation(), seed, 2) for seed in range(2000)]

    def share(has: object) -> float:
        return float(np.mean([has(one) for one in draws]))  # type: ignore[operator]

    assert share(lambda one: bool(one.flips)) == pytest.approx(0.5, abs=0.04)
    assert share(lambda one: one.affine is not None) == pytest.approx(0.3, abs=0.04)
    assert share(lambda one: len(one.curves[0]) > 2) == pytest.approx(0.5, abs=0.04)
    assert share(lambda one: one.gammas[1] != 1) == pytest.approx(0.5, abs=0.04)
    assert share(lambda one: one.bias_CNNN[1].any()) == pytest.approx(0.3, abs=0.04)
    assert share(lambda one: one.noise_sd[0] > 0) == pytest.approx(0.3, abs=0.04)
    assert share(lambda one: one.zooms[0] < 1) == pytest.approx(0.25, abs=0.04)
    assert isinstance(draws[0], Draws)
