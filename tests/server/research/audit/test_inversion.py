"""Gradient inversion: it makes a patch again from its gradient, and from noise it does not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from tests.client.segmentation.test_loop import STUDY

from msfl_client.segmentation.network_input import NetworkInput
from msfl_client.segmentation.patches import PatchDataset
from msfl_common.config.differential_privacy import DifferentialPrivacy
from msfl_common.models.network import build_network
from msfl_server.research.audit import inversion
from msfl_server.research.audit.images import ImageSite
from msfl_server.research.audit.inversion import Seen, audit, hidden, invert, is_recognised, num_attacks, small

PRIVATE = DifferentialPrivacy(noise_multiplier=2, sampling_rate=0.5)


SMALL = STUDY.model_copy(
    update={"training": STUDY.training.model_copy(update={"steps_per_round": 2, "patch_voxels": 8})}
)


def smooth(seed: int) -> NetworkInput:
    """A case whose contrasts are smooth, as images are."""
    noise = np.random.default_rng(seed).normal(size=(2, 24, 24, 24))
    image_CDHW = np.stack([gaussian_filter(one, 1.5) for one in noise])
    image_CDHW /= image_CDHW.std()
    return NetworkInput(image_CDHW.astype(np.float32), (image_CDHW[1] > 1.5).astype(np.uint8), np.eye(4))


def site(first: int) -> ImageSite:
    learned, others = (
        PatchDataset([smooth(number) for number in range(begin, begin + 3)], SMALL.training, begin)
        for begin in (first, first + 10)
    )
    return ImageSite(learned, others, 3, 6)


def test_patches_are_as_small_as_the_network_takes() -> None:
    large = STUDY.model_copy(update={"training": STUDY.training.model_copy(update={"patch_voxels": 96})})
    assert small(large).training.patch_voxels == 16
    assert small(SMALL).training.patch_voxels == 8


@pytest.mark.slow
def test_an_image_is_made_again_from_its_gradient_and_not_from_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inversion, "_STEPS", 60)
    network = build_network(SMALL).train()
    seen = inversion._of_one_patch(network, {"site": site(0)}, 0)
    shape = seen.learned[0].shape
    assert is_recognised(invert(network, seen.told, shape, 0), seen.learned, seen.others)
    noisy = hidden(seen, PRIVATE, "release")
    length = torch.stack([of.square().sum() for of in noisy.told.values()]).sum().sqrt()
    assert float(length) > 50  # of some thousand numbers, 2 each
    alike = [invert(network, of, shape, 0) for of in (seen.told, noisy.told)]
    assert inversion._likeness(alike[0], seen.learned[0]) > 0.2 + inversion._likeness(alike[1], seen.learned[0])


def test_the_likest_of_ten_has_to_be_one_that_was_learned_from() -> None:
    made = torch.linspace(0, 1, 8).reshape(1, 2, 2, 2)
    other = made.flip(1)
    assert is_recognised(made, [other, 2 * made], [other] * 18)
    assert not is_recognised(made, [other, other], [2 * made + 1, *[other] * 17])


@pytest.mark.slow
def test_every_defence_is_held_against_the_bare_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inversion, "NUM_PATCHES", 2)
    monkeypatch.setattr(inversion, "_STEPS", 2)
    study = SMALL.model_copy(update={"differential_privacy": PRIVATE})
    asked: list[Seen] = []
    monkeypatch.setattr(inversion, "invert", lambda _, told, shape, seed: asked.append(told) or torch.zeros(shape))
    done: list[None] = []
    findings = audit(study, {"a": site(0), "b": site(20)}, lambda: done.append(None))
    assert [one.measured.defence for one in findings] == ["", inversion.ROUND, inversion.SUM, inversion.NOISE]
    assert len(done) == len(asked) == num_attacks(study) == 8
    assert {one.verdict for one in findings} == {"inconclusive"}
    assert "of 2 sites" in findings[2].measured.note
