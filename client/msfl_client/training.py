"""One site's training in one round, and its validation: plain functions on tensors.

Legend: B batch, C contrast, D/H/W voxels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from monai.losses import DiceCELoss
from numpy.typing import NDArray

from msfl_client.patches import PatchLoader, pad_to
from msfl_client.preprocess import PreparedCase
from msfl_common.config import StudyConfig
from msfl_common.errors import Code, RefusedError
from msfl_common.metrics import segmentation_metrics
from msfl_common.network import LESION_THRESHOLD

OnStep = Callable[[int, int, float], None]  # step, steps in the round, loss


def pick_device(name: str) -> torch.device:
    """The device that `auto` or a name stands for: cuda, then mps, then cpu.

    Raises:
        RefusedError: the named device is not there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    device = torch.device(name)
    missing_cuda = device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()
    if missing_cuda or (device.type == "mps" and not torch.backends.mps.is_available()):
        raise RefusedError(Code.POLICY, f"device {name} is not there; use `device: auto`")
    return device


def train_round(
    network: torch.nn.Module,
    loader: PatchLoader,
    study: StudyConfig,
    round_number: int,
    device: torch.device,
    on_step: OnStep,
) -> float:
    """Train `network` in place for one round; returns the mean loss.

    Soft Dice plus cross-entropy, AdamW with fresh moments every round, cosine decay over all rounds.

    Raises:
        RefusedError: the loss became non-finite.
    """
    training = study.training
    on_cuda = device.type == "cuda"
    network.to(device).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay)
    scaler = torch.amp.GradScaler(enabled=on_cuda)
    loss_of = DiceCELoss(sigmoid=True, batch=True)
    total = torch.zeros((), device=device)
    for step, (image_BCDHW, label_B1DHW) in enumerate(loader.batches(round_number), start=1):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(study, round_number, step)
        with torch.autocast(device.type, enabled=on_cuda):
            logits_B1DHW = network(image_BCDHW.to(device, non_blocking=True))
            loss = loss_of(logits_B1DHW.float(), label_B1DHW.to(device, non_blocking=True))
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(network.parameters(), training.clip_norm)
        scaler.step(optimizer)
        scaler.update()
        total += loss.detach()
        on_step(step, training.steps_per_round, float(total) / step)
    mean_loss = float(total) / training.steps_per_round
    if not math.isfinite(mean_loss):
        raise RefusedError(Code.TRAINING_DIVERGED, f"mean loss {mean_loss} in round {round_number}")
    return mean_loss


def learning_rate(study: StudyConfig, round_number: int, step: int) -> float:
    """Cosine decay from `training.learning_rate` to 0 over all steps of all rounds; steps count from 1."""
    done = (round_number - 1) * study.training.steps_per_round + step - 1
    progress = done / (study.rounds.num_rounds * study.training.steps_per_round)
    return 0.5 * study.training.learning_rate * (1.0 + math.cos(math.pi * progress))


@torch.inference_mode()
def predict_probability(
    network: torch.nn.Module, image_CDHW: NDArray[np.float32], study: StudyConfig, device: torch.device
) -> NDArray[np.float32]:
    """Lesion probability_DHW of a prepared case: sliding windows, averaged over left-right mirroring."""
    network.to(device).eval()
    image_BCDHW = pad_to(torch.as_tensor(image_CDHW).float(), study.training.patch_voxels)[None].to(device)

    def windows(input_BCDHW: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, enabled=device.type == "cuda"):
            logits: torch.Tensor = sliding_window_inference(
                input_BCDHW,
                roi_size=(study.training.patch_voxels,) * 3,
                sw_batch_size=4,
                predictor=network,
                overlap=study.validation.window_overlap,
                mode="gaussian",
            )
        return logits.float().sigmoid()

    probability_BCDHW = (windows(image_BCDHW) + windows(image_BCDHW.flip(2)).flip(2)) / 2
    depth, height, width = image_CDHW.shape[1:]
    return np.asarray(probability_BCDHW[0, 0, :depth, :height, :width].cpu().numpy())


def validate(
    network: torch.nn.Module,
    cases: Sequence[PreparedCase],
    study: StudyConfig,
    device: torch.device,
    on_case: Callable[[int, int], None],
) -> list[dict[str, float]]:
    """Metrics of each case on the study's grid; they stay at the site until they are aggregated."""
    rows = []
    for number, case in enumerate(cases, start=1):
        assert case.label_DHW is not None
        predicted_DHW = predict_probability(network, case.image_CDHW, study, device) >= LESION_THRESHOLD
        rows.append(segmentation_metrics(predicted_DHW, case.label_DHW > 0, (study.inputs.spacing_mm,) * 3))
        on_case(number, len(cases))
    return rows
