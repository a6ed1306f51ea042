"""Steps a second of the training loop, patches and augmentation included, against the bare network's on one batch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from msfl_client.segmentation.loop import train_round
from msfl_client.segmentation.network_input import NetworkInput
from msfl_client.segmentation.patches import Patch, PatchDataset, PatchLoader
from msfl_common.config.study import StudyConfig, Training, load_study
from msfl_common.models.network import build_network
from msfl_common.monai_parts import DiceCELoss
from msfl_common.networks.registry import DynUNet
from tests.benchmarks.figure import Figure

EXAMPLES = Path(__file__).parents[3] / "site_configs"
REPEATS = 3  # the two in turn, so that both meet whatever else the machine does


@dataclass(frozen=True)
class OneBatch:
    """The same batch at every step."""

    batch: Patch
    num_steps: int

    def batches(self, _: int) -> Iterator[Patch]:
        """It, so many times."""
        return iter([self.batch] * self.num_steps)


def measure() -> list[Figure]:
    """On the CPU the demo's network and a small DynUNet; on a GPU the study for real work.

    On a CPU one thread computes, and its own time counts, whatever else the machine does.
    """
    torch.set_num_threads(1)
    demo = load_study(EXAMPLES / "demo" / "study.yaml")
    dynunet = StudyConfig(
        name="dynunet",
        network=DynUNet(channels=(16, 32, 64, 128), deep_supervision=True),
        training=Training(patch_voxels=32, batch_size=2),
    )
    cpu = torch.device("cpu")
    figures = [
        _figure("demo's U-Net, CPU", _with_steps(demo, 6), cpu),
        _figure("DynUNet, CPU", _with_steps(dynunet, 6), cpu),
    ]
    name = "steps a second, study for real work, GPU"
    if torch.cuda.is_available():
        study = _with_steps(load_study(EXAMPLES / "lesions.example.yaml"), 30)
        return [*figures, _figure("study for real work, GPU", study, torch.device("cuda:0"))]
    return [*figures, Figure(name, None, "", 0.9, "at_least", "bare network", "no CUDA GPU is at hand")]


def _with_steps(study: StudyConfig, num_steps: int) -> StudyConfig:
    return study.model_copy(
        update={"training": study.training.model_copy(update={"steps_per_round": num_steps}), "strategy": None}
    )


def _figure(name: str, study: StudyConfig, device: torch.device) -> Figure:
    training = study.training
    edge = max(80, training.patch_voxels + 16)
    loader = PatchLoader(PatchDataset([_head(seed, edge) for seed in range(3)], training, seed=0), device)
    network = build_network(study).to(device)
    batch = next(iter(loader.batches(1)))
    loop, bare = [], []
    for number in range(1, REPEATS + 2):  # the first warms up
        loop.append(_seconds(lambda n=number: train_round(network, loader, study, n, device, lambda *_: None), device))
        bare.append(_seconds(lambda: _plain_steps(network, batch, training.steps_per_round, device), device))
    ratio = float(np.median(np.array(bare[1:]) / np.array(loop[1:])))
    step_ms = min(loop) / training.steps_per_round * 1000
    how = (
        f"{training.steps_per_round} steps of {training.batch_size} patches of {training.patch_voxels} voxels an edge, "
        f"median of {REPEATS}; {step_ms:.0f} ms a step"
    )
    return Figure(f"steps a second, {name}", ratio, "", 0.9, "at_least", "bare PyTorch on one batch", how)


def _plain_steps(network: torch.nn.Module, batch: Patch, num_steps: int, device: torch.device) -> None:
    """What PyTorch's tutorials write, in the device's short precision."""
    network.train()
    optimizer, loss_of = torch.optim.AdamW(network.parameters(), 1e-3), DiceCELoss(sigmoid=True, batch=True)
    image, label = (one.to(device) for one in batch)
    for _ in range(num_steps):
        optimizer.zero_grad()
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            logits = network(image)
        loss = torch.stack([loss_of(one.float(), label) for one in logits.split(1, dim=1)]).mean()
        loss.backward()
        optimizer.step()


def _seconds(work: object, device: torch.device) -> float:
    if device.type == "cpu":
        start = time.process_time()
        work()  # type: ignore[operator]
        return time.process_time() - start
    start = time.perf_counter()
    work()  # type: ignore[operator]
    torch.cuda.synchronize(device)
    return time.perf_counter() - start


def _head(seed: int, edge: int) -> NetworkInput:
    rng = np.random.default_rng(seed)
    image_CDHW = rng.normal(size=(2, edge, edge, edge)).astype(np.float32)
    return NetworkInput(image_CDHW, (rng.random((edge,) * 3) > 0.99).astype(np.uint8), np.eye(4))
