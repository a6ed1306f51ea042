"""One round at one site, on the real network."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from msfl_client.segmentation.loop import predict_probability, train_round, validate
from msfl_client.segmentation.network_input import NetworkInput
from msfl_client.segmentation.patches import PatchDataset, PatchLoader
from msfl_client.training.rates import rate_at
from msfl_common.config.study import Augmentation, Rounds, StudyConfig, Training
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


def test_a_device_that_is_not_there_is_refused() -> None:
    assert pick_device("cpu") == CPU
    if not torch.cuda.is_available():
        with pytest.raises(RefusedError, match=r"NO_DEVICE: .*cuda:0: PyTorch finds no NVIDIA GPU here"):
            pick_device("cuda:0")
