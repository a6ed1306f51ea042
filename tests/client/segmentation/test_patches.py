"""Training patches: reproducible, near lesions, inside the image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from msfl_client.segmentation.network_input import NetworkInput
from msfl_client.segmentation.patches import PatchDataset, PatchLoader, pad_to
from msfl_common.config.study import Augmentation, Training

PLAIN = Augmentation(flip=0, affine=0, gamma=0, bias=0, noise=0, low_resolution=0)
ALWAYS = Augmentation(flip=1, affine=1, gamma=1, bias=1, noise=1, low_resolution=1)


def case(seed: int, lesion: bool = True, size: int = 24) -> NetworkInput:
    image = np.random.default_rng(seed).normal(size=(2, size, size, size)).astype(np.float32)
    label = np.zeros((size,) * 3, np.uint8)
    label[size // 2, 3, 5] = lesion
    return NetworkInput(image, label, np.eye(4))


def dataset(cases: list[NetworkInput], augmentation: Augmentation = PLAIN, **settings: object) -> PatchDataset:
    return PatchDataset(cases, Training(patch_voxels=16, augmentation=augmentation, **settings), seed=3)  # type: ignore[arg-type]


def test_a_patch_depends_on_seed_and_index_alone() -> None:
    patches = dataset([case(0), case(1)], ALWAYS)
    image, label = patches[7]
    _ = patches[3]
    again, label_again = patches[7]
    assert torch.equal(image, again)
    assert torch.equal(label, label_again)
    assert not torch.equal(image, patches[8][0])


@pytest.mark.slow
def test_workers_do_not_change_the_patches() -> None:
    patches = dataset([case(0), case(1)], ALWAYS)
    alone = [image for image, _ in DataLoader(patches, sampler=range(6), batch_size=2)]
    helped = [image for image, _ in DataLoader(patches, sampler=range(6), batch_size=2, num_workers=2)]
    assert all(torch.equal(a, b) for a, b in zip(alone, helped, strict=True))


def test_a_round_is_its_own_window_of_the_stream() -> None:
    patches = dataset([case(0)], steps_per_round=3, batch_size=2)
    loader = PatchLoader(patches, torch.device("cpu"))
    first, second = (torch.cat([image for image, _ in loader.batches(number)]) for number in (1, 2))
    assert first.shape == (6, 2, 16, 16, 16)
    assert torch.equal(second[0], patches[6][0])
    assert torch.equal(first, torch.cat([image for image, _ in loader.batches(1)]))


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_patches_hold_a_lesion_as_often_as_asked(share: float) -> None:
    patches = dataset([case(0, size=64)], lesion_patch_fraction=share)
    held = np.mean([bool(patches[index][1].any()) for index in range(40)])
    assert held == 1.0 if share else held < 0.3


def test_every_case_comes_equally_often() -> None:
    patches = dataset([case(seed) for seed in range(5)])
    counts = np.bincount([patches._case_of(index) for index in range(50)])
    assert counts.tolist() == [10] * 5


def test_a_case_without_lesions_trains_too() -> None:
    image, label = dataset([case(0, lesion=False)], lesion_patch_fraction=1.0)[0]
    assert not label.any()
    assert image.any()


def test_a_small_image_is_padded() -> None:
    image, label = dataset([case(0, size=12)])[0]
    assert image.shape == (2, 16, 16, 16)
    assert label.shape == (1, 16, 16, 16)
    assert pad_to(torch.ones(1, 3, 4, 5), 4).shape == (1, 4, 4, 5)


def test_augmentation_leaves_the_background_dark_and_labels_binary() -> None:
    prepared = case(0)
    prepared.image_CDHW[:, :6] = prepared.image_CDHW.min(axis=(1, 2, 3), keepdims=True)
    patches = dataset([prepared], Augmentation(flip=0, affine=0, gamma=1, bias=1, noise=1, low_resolution=1))
    for index in range(5):
        image, label = patches[index]
        assert set(label.unique().tolist()) <= {0.0, 1.0}
        assert torch.isfinite(image).all()
    background = dataset([prepared])
    for index in range(5):
        dark = background[index][0] == background.floors[0]
        assert torch.equal(patches[index][0][dark], background[index][0][dark])


def test_augmentation_changes_intensities_by_a_plausible_amount() -> None:
    plain, changed = dataset([case(0)]), dataset([case(0)], Augmentation(flip=0, affine=0, gamma=1))
    difference = torch.stack([(plain[index][0] - changed[index][0]).abs().mean() for index in range(10)])
    assert difference.mean() > 0.02
    assert difference.max() < 2.0


def test_a_cut_is_the_patch_before_it_is_augmented() -> None:
    """What a GPU gets, to augment a whole batch of them; the seed of what becomes of each is its own."""
    patches = dataset([case(0), case(1)])
    cuts = [patches.cut(index) for index in range(4)]
    for index, (image, floor, label, _) in enumerate(cuts):
        assert all(
            torch.allclose(one, other, atol=1e-6) for one, other in zip((image, label), patches[index], strict=True)
        )
        assert torch.equal(floor, patches.floors[patches._case_of(index)])
    assert len({seed for *_, seed in cuts}) == 4
