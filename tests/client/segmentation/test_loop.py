"""One round at one site, on the real network."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from msfl_client.segmentation.augmentation import PatchAugmentation
from msfl_client.segmentation.loop import loss_of, predict_probability, train_round, validate
from msfl_client.segmentation.network_input import NetworkInput
from msfl_client.segmentation.patches import PatchDataset, PatchLoader
from msfl_client.training.rates import rate_at
from msfl_common.config.study import Augmentation, Rounds, StudyConfig, Training, Validation
from msfl_common.config.training import AXES, Axis
from msfl_common.errors import RefusedError
from msfl_common.models.network import build_network, get_weights
from msfl_common.networks.registry import UNet
from msfl_common.system.devices import pick_device

CPU = torch.device("cpu")
STUDY = StudyConfig(
    name="easy",
    network=UNet(channels=(8, 16)),
    training=Training(
        steps_per_round=30,
        batch_size=2,
        patch_voxels=16,
        learning_rate=0.01,
        augmentation=Augmentation(gamma=0, bias=0, noise=0, low_resolution=0),
    ),
    rounds=Rounds(num_rounds=3, quorum=1),
)


def bright_lesions(seed: int) -> NetworkInput:
    """A case in which a lesion is whatever is bright in the second contrast."""
    rng = np.random.default_rng(seed)
    image = rng.normal(0, 0.3, (2, 24, 24, 24)).astype(np.float32)
    label = np.zeros((24, 24, 24), np.uint8)
    for corner in rng.integers(2, 18, (4, 3)):
        label[tuple(slice(low, low + 4) for low in corner)] = 1
    image[1] += 3 * label
    return NetworkInput(image, label, np.eye(4))


def train(cases: list[NetworkInput], rounds: int = 1) -> tuple[torch.nn.Module, list[float]]:
    network = build_network(STUDY)
    loader = PatchLoader(PatchDataset(cases, STUDY.training, 1), CPU)
    return network, [
        train_round(network, loader, STUDY, number, CPU, lambda *_: None) for number in range(1, rounds + 1)
    ]


@pytest.mark.slow
def test_training_learns_an_easy_lesion() -> None:
    network, losses = train([bright_lesions(seed) for seed in range(4)], rounds=3)
    assert losses[-1] < 0.6 * losses[0]
    rows = validate(network, [bright_lesions(9)], STUDY, CPU, lambda *_: None)
    assert rows[0]["dsc"] > 0.7


def test_equal_seeds_give_equal_weights() -> None:
    first, second = (get_weights(train([bright_lesions(0)])[0]) for _ in range(2))
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_first_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = get_weights(build_network(STUDY))
    torch.manual_seed(2)
    second = get_weights(build_network(STUDY))
    other = get_weights(build_network(STUDY.model_copy(update={"seed": 1})))
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert any(not np.array_equal(first[name], other[name]) for name in first)


def test_the_learning_rate_falls_from_its_start_to_zero() -> None:
    rates = [rate_at(STUDY, number, step) for number in (1, 2, 3) for step in range(1, 31)]
    assert rates[0] == pytest.approx(0.01)
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.01 * 0.005


def test_each_coarser_level_counts_half_of_the_one_before() -> None:
    logits = torch.randn(2, 3, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    label = (torch.rand(2, 1, 4, 4, 4, generator=torch.Generator().manual_seed(1)) > 0.8).float()
    alone = [float(loss_of(logits[:, level : level + 1], label)) for level in range(3)]
    assert float(loss_of(logits, label)) == pytest.approx((4 * alone[0] + 2 * alone[1] + alone[2]) / 7)


def test_a_loss_that_is_not_finite_is_refused() -> None:
    network = build_network(STUDY)
    with torch.no_grad():
        next(network.parameters()).fill_(float("nan"))
    loader = PatchLoader(PatchDataset([bright_lesions(0)], STUDY.training, 1), CPU)
    with pytest.raises(RefusedError, match="TRAINING_DIVERGED"):
        train_round(network, loader, STUDY, 1, CPU, lambda *_: None)


@pytest.mark.parametrize("shape", [(24, 20, 18), (9, 30, 17)])
def test_a_prediction_has_the_shape_of_its_case(shape: tuple[int, int, int]) -> None:
    image = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    probability = predict_probability(build_network(STUDY), image, STUDY, CPU)
    assert probability.shape == shape
    assert (probability >= 0).all()
    assert (probability <= 1).all()


def test_a_mirrored_head_gives_the_mirrored_prediction() -> None:
    image = np.random.default_rng(0).normal(size=(2, 16, 16, 16)).astype(np.float32)
    network = build_network(STUDY)
    straight = predict_probability(network, image, STUDY, CPU)
    mirrored = predict_probability(network, image[:, ::-1].copy(), STUDY, CPU)
    assert np.allclose(mirrored[::-1], straight, atol=1e-5)


@pytest.mark.parametrize(("axes", "mirroring", "count"), [(AXES, True, 8), (AXES[:2], True, 4), (AXES, False, 1)])
def test_a_prediction_is_the_mean_over_mirror_images(axes: tuple[Axis, ...], mirroring: bool, count: int) -> None:
    training = STUDY.training.model_copy(update={"augmentation": Augmentation(flip_axes=axes)})
    validation = Validation(mirroring=mirroring)
    study = STUDY.model_copy(update={"training": training, "validation": validation})
    image = np.random.default_rng(0).normal(size=(2, 16, 16, 16)).astype(np.float32)
    network, seen = build_network(STUDY).eval(), torch.from_numpy(image)[None]
    turns = [tuple(axis for axis in (2, 3, 4) if axis in chosen) for chosen in _subsets(len(axes), mirroring)]
    with torch.no_grad():
        each = [network(seen.flip(axes)).flip(axes).sigmoid() for axes in turns]
    assert len(each) == count
    found = predict_probability(network, image, study, CPU)
    assert np.allclose(found, torch.stack(each).mean(dim=0)[0, 0].numpy(), atol=1e-5)


def _subsets(num_axes: int, mirroring: bool) -> list[set[int]]:
    """Of the first so many spatial axes of image_BCDHW, the sets to mirror along; the empty one alone without."""
    last = 2**num_axes if mirroring else 1
    return [{2 + axis for axis in range(num_axes) if number >> axis & 1} for number in range(last)]


def test_patches_are_mirrored_along_each_axis_that_is_named() -> None:
    image = torch.arange(8.0).reshape(1, 2, 2, 2).repeat(2, 1, 1, 1) + 1
    moved = PatchAugmentation(
        Augmentation(flip=1, affine=0, gamma=0, bias=0, noise=0, low_resolution=0, flip_axes=AXES)
    )
    assert torch.equal(moved(image, torch.zeros(2, 1, 1, 1), image[:1], 0)[0], image.flip((1, 2, 3)))


def test_a_device_that_is_not_there_is_refused() -> None:
    assert pick_device("cpu") == CPU
    if not torch.cuda.is_available():
        with pytest.raises(RefusedError, match=r"NO_DEVICE: .*cuda:0: PyTorch finds no NVIDIA GPU here"):
            pick_device("cuda:0")
