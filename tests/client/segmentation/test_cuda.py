"""What only a GPU can show: mixed precision, the memory cap, several GPUs in one round."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from msfl_client.segmentation.device_augmentation import augment_batch
from msfl_client.segmentation.distributed import train_on_devices
from msfl_client.segmentation.distributed_rank import Job
from msfl_client.segmentation.loop import predict_probability, train_round
from msfl_client.segmentation.network_input import NetworkInput, save_network_input
from msfl_client.segmentation.patches import PatchDataset, PatchLoader
from msfl_client.training.steps import mixed_precision
from msfl_common.config.study import Augmentation, Rounds, StudyConfig, Training
from msfl_common.errors import Code, RefusedError
from msfl_common.models.network import build_network, get_weights
from msfl_common.networks.registry import UNet
from msfl_common.system.devices import cap_memory, free_memory, pick_devices

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU and a CUDA build of PyTorch")

CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")
STUDY = StudyConfig(
    name="easy",
    network=UNet(channels=(8, 16)),
    training=Training(
        steps_per_round=30,
        batch_size=4,
        patch_voxels=16,
        learning_rate=0.01,
        augmentation=Augmentation(gamma=0, bias=0, noise=0, low_resolution=0),
    ),
    rounds=Rounds(num_rounds=3, quorum=1, deadline_s=300),
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


CASES = [bright_lesions(number) for number in range(4)]


@pytest.fixture
def whole_gpu() -> Iterator[None]:
    yield
    cap_memory(CUDA, 1.0)
    free_memory(CUDA)


def train(device: torch.device, rounds: int = 1) -> tuple[torch.nn.Module, list[float]]:
    network = build_network(STUDY)
    loader = PatchLoader(PatchDataset(CASES, STUDY.training, 1), device)
    return network, [
        train_round(network, loader, STUDY, number, device, lambda *_: None) for number in range(1, rounds + 1)
    ]


def test_auto_is_the_first_gpu() -> None:
    assert pick_devices("auto") == pick_devices("cuda") == (CUDA,)


def test_mixed_precision_computes_short_and_learns_as_a_cpu_does() -> None:
    network = build_network(STUDY).to(CUDA)
    seen: set[torch.dtype] = set()
    last = [module for module in network.modules() if isinstance(module, torch.nn.Conv3d)][-1]
    last.register_forward_hook(lambda _, __, output: seen.add(output.dtype))
    loader = PatchLoader(PatchDataset(CASES, STUDY.training, 1), CUDA)
    losses = [train_round(network, loader, STUDY, number, CUDA, lambda *_: None) for number in (1, 2)]
    assert seen == {mixed_precision(CUDA)} <= {torch.bfloat16, torch.float16}
    assert {weight.dtype for weight in network.parameters()} == {torch.float32}
    _, on_cpu = train(CPU, rounds=2)
    assert losses == pytest.approx(on_cpu, abs=0.1)
    assert losses[1] < losses[0]


def test_a_round_that_was_stopped_leaves_the_loader_fit_for_the_next() -> None:
    loader = PatchLoader(PatchDataset(CASES, STUDY.training, 1), CUDA)
    expected = [image for image, _ in PatchLoader(PatchDataset(CASES, STUDY.training, 1), CUDA).batches(2)]

    def stop(step: int, *_: object) -> None:
        raise RefusedError(Code.OUTSIDE_HOURS)

    with pytest.raises(RefusedError, match="OUTSIDE_HOURS"):
        train_round(build_network(STUDY), loader, STUDY, 1, CUDA, stop)
    found = [image for image, _ in loader.batches(2)]
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_a_gpu_augments_as_a_cpu_would() -> None:
    """But for noise, whose numbers are the device's own."""
    settings = Augmentation(flip=1, affine=1, gamma=1, bias=1, noise=0, low_resolution=1)
    image = torch.rand(3, 2, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    batch = (image, image.amin((2, 3, 4), keepdim=True), (image[:, :1] > 0.9).float())
    on_cpu = augment_batch(settings, *batch, seeds=(1, 2, 3))
    on_gpu = augment_batch(settings, *(one.to(CUDA) for one in batch), seeds=(1, 2, 3))
    assert torch.allclose(on_gpu[0].cpu(), on_cpu[0], atol=1e-3)
    assert (on_gpu[1].cpu() != on_cpu[1]).float().mean() < 0.01


def test_a_gpu_predicts_what_a_cpu_does() -> None:
    network, _ = train(CPU)
    image = bright_lesions(9).image_CDHW
    on_cpu = predict_probability(network, image, STUDY, CPU)
    on_gpu = predict_probability(network, image, STUDY, CUDA)
    assert np.abs(on_gpu - on_cpu).max() < 0.05


@pytest.mark.usefixtures("whole_gpu")
def test_no_more_memory_is_taken_than_the_site_lends() -> None:
    total = torch.cuda.get_device_properties(CUDA).total_memory
    fraction = 2**30 / total  # one GiB
    cap_memory(CUDA, fraction)
    half = torch.empty(2**29, dtype=torch.uint8, device=CUDA)
    with pytest.raises(torch.OutOfMemoryError):
        torch.empty(2**30, dtype=torch.uint8, device=CUDA)
    del half
    free_memory(CUDA)
    train(CUDA)
    assert torch.cuda.max_memory_reserved(CUDA) <= 2**30


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_train_about_as_one(tmp_path: Path) -> None:
    for number, case in enumerate(CASES):
        save_network_input(tmp_path / f"{number}.safetensors", case)
    network = build_network(STUDY)
    job = Job(
        study=STUDY,
        round_number=1,
        cases=tuple(sorted(tmp_path.iterdir())),
        seed=1,
        devices=("cuda:0", "cuda:1"),
        memory_fraction=0.5,
    )
    steps: list[int] = []
    loss = train_on_devices(network, job, lambda step, *_: steps.append(step))
    one, (one_loss,) = train(CUDA)
    assert steps == list(range(1, 31))
    assert loss == pytest.approx(one_loss, abs=0.1)
    start = get_weights(build_network(STUDY))
    moved = [
        np.concatenate([(value - start[name]).ravel() for name, value in get_weights(trained).items()])
        for trained in (one, network)
    ]
    assert moved[0] @ moved[1] / np.linalg.norm(moved[0]) / np.linalg.norm(moved[1]) > 0.9
