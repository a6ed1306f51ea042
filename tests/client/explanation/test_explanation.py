"""Relevance of scores that are known, and the check that tells a map from chance."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch

from msfl_client.explanation.deletion import SHARES, deletion
from msfl_client.explanation.integrated_gradients import integrated_gradients
from msfl_client.explanation.rows import doubts
from msfl_client.explanation.score import Around, Explained, Relevance, blurred, explained

SHAPE = (1, 2, 10, 12, 8)


def brain(seed: int = 0) -> np.ndarray:
    """Noise around 100 before a background of 0, brighter in a corner of the second contrast."""
    images = np.zeros(SHAPE, np.float32)
    images[..., 1:-1, 1:-1, 1:-1] = np.random.default_rng(seed).normal(100, 5, (1, 2, 8, 10, 6))
    images[0, 1, 2:4, 2:4, 2:4] += 100
    return images


def of(score) -> Explained:  # type: ignore[no-untyped-def]
    def with_context(images: torch.Tensor, around: Around = nullcontext) -> torch.Tensor:
        with around():
            return score(images)

    return explained(with_context, brain(), [(4.0, 4.0, 4.0)], torch.device("cpu"))


def bright_corner(images: torch.Tensor) -> torch.Tensor:
    return (images[0, 1, 2:4, 2:4, 2:4] / 100).square().mean()


def test_a_linear_score_is_shared_out_exactly() -> None:
    weights = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    what = of(lambda images: (weights * images).sum())
    found = integrated_gradients(what, 1)
    expected = weights.numpy() * (what.images_VCDHW - what.baseline_VCDHW).numpy()
    assert np.allclose(found.map_VCDHW, expected, atol=1e-4)
    assert found.total == pytest.approx(found.explains, abs=1e-2)


def test_all_voxels_together_are_what_the_score_gained_and_no_other_voxel_has_a_part() -> None:
    what = of(bright_corner)
    found = integrated_gradients(what)
    assert found.explains == pytest.approx(what.value(what.images_VCDHW) - what.value(what.baseline_VCDHW))
    assert found.total == pytest.approx(found.explains, rel=1e-4)
    inside = np.zeros(SHAPE, bool)
    inside[0, 1, 2:4, 2:4, 2:4] = True
    assert not found.map_VCDHW[~inside].any()
    assert (found.map_VCDHW[inside] > 0).all()


def test_the_baseline_keeps_the_shape_of_the_brain_and_lets_no_background_in() -> None:
    images = brain()
    images[0, 0] = 0  # a contrast that was not scanned
    inside = images > 0
    smooth = blurred(images, inside, [(2.0, 2.0, 2.0)])
    assert np.array_equal(smooth > 0, inside)
    assert smooth[inside].min() > 90  # background would have made the rim dark
    assert smooth[inside].std() < 0.3 * images[inside].std()
    level = blurred(np.where(inside, np.float32(7), np.float32(-3)), inside, [(2.0, 2.0, 2.0)])
    assert np.allclose(level[inside], 7, atol=1e-4)
    assert (level[~inside] == -3).all()


def test_deletion_tells_a_map_from_chance_and_from_its_opposite() -> None:
    what = of(bright_corner)
    relevance = integrated_gradients(what)
    good = deletion(what, relevance.map_VCDHW)
    assert len(good.by_map) == len(good.at_random) == len(SHARES)
    assert good.by_map[0] == good.at_random[0] == pytest.approx(what.value(what.images_VCDHW))
    assert good.by_map[-1] == good.at_random[-1] == pytest.approx(what.value(what.baseline_VCDHW))
    assert good.gain == pytest.approx(np.mean(good.at_random) - np.mean(good.by_map))
    noise = np.random.default_rng(3).normal(size=SHAPE).astype(np.float32)
    wrong, chance = deletion(what, -relevance.map_VCDHW), deletion(what, noise)
    assert wrong.gain < 0 < good.gain
    assert abs(chance.gain) < good.gain / 2
    assert deletion(what, relevance.map_VCDHW) == good
    assert doubts("integrated-gradients", relevance, good) == ()
    assert "no more than chance" in doubts("integrated-gradients", relevance, wrong)[0]
    half = Relevance(relevance.map_VCDHW / 2, relevance.explains)
    assert "the map adds up to" in doubts("integrated-gradients", half, good)[0]
    assert doubts("layerwise-relevance", half, good) == ()  # biases may have the rest
