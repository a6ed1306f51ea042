"""One site's training in one round, and its validation: plain functions on tensors.

Legend: B batch, C contrast, D/H/W voxels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.parallel import DistributedDataParallel

from msfl_client.segmentation.network_input import PreparedCase
from msfl_client.segmentation.patches import PatchLoader, pad_to
from msfl_client.trainer import OnStep
from msfl_common.config.study import StudyConfig
from msfl_common.errors import Code, RefusedError
from msfl_common.metrics.segmentation import segmentation_metrics
from msfl_common.models.model_folder import LESION_THRESHOLD
from msfl_common.monai_parts import DiceCELoss, sliding_window_inference


def train_round(
    network: torch.nn.Module,
    loader: PatchLoader,
    study: StudyConfig,
    round_number: int,
    device: torch.device,
    on_step: OnStep,
    micro_batches: int = 1,
    gradient_weight: float = 1.0,
) -> float:
    """Train `network` in place for one round; returns the mean loss.

    Soft Dice plus cross-entropy, AdamW with fresh moments every round, cosine decay over all rounds.

    Args:
        network: the network, or its DistributedDataParallel.
        loader: the round's batches, or this device's share of them.
        study: losses, steps and rates.
        round_number: from 1.
        device: where to train.
        on_step: called after each step.
        micro_batches: parts in which each batch goes through the network, one after the other, to take less
            memory. The steps stay the same: instance norm looks at one patch at a time, so the accumulated
            gradient is that of the whole batch but for soft Dice, which is taken over each part by itself.
        gradient_weight: factor on the gradients, for shares of unequal size.

    Raises:
        RefusedError: the loss became non-finite.
    """
    training = study.training
    precision = mixed_precision(device)
    network.to(device).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay)
    scaler = torch.amp.GradScaler(enabled=precision is torch.float16)  # bfloat16 reaches as far as float32
    loss_of = DiceCELoss(sigmoid=True, batch=True)
    total = torch.zeros((), device=device)
    for step, (image_BCDHW, label_B1DHW) in enumerate(loader.batches(round_number), start=1):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(study, round_number, step)
        optimizer.zero_grad(set_to_none=True)
        parts = list(zip(image_BCDHW.chunk(micro_batches), label_B1DHW.chunk(micro_batches), strict=True))
        for number, (image_part, label_part) in enumerate(parts, start=1):
            share = len(image_part) / len(image_BCDHW)
            with _exchange_gradients(network, number == len(parts)):
                with torch.autocast(device.type, dtype=precision, enabled=precision is not None):
                    logits_B1DHW = network(image_part.to(device, non_blocking=True))
                    loss = loss_of(logits_B1DHW.float(), label_part.to(device, non_blocking=True))
                scaler.scale(loss * (share * gradient_weight)).backward()
            total += loss.detach() * share
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(network.parameters(), training.clip_norm)
        scaler.step(optimizer)
        scaler.update()
        on_step(step, training.steps_per_round, float(total) / step)
    mean_loss = float(total) / training.steps_per_round
    if not math.isfinite(mean_loss):
        raise RefusedError(Code.TRAINING_DIVERGED, f"mean loss {mean_loss} in round {round_number}")
    return mean_loss


def mixed_precision(device: torch.device) -> torch.dtype | None:
    """The short type that a GPU computes in: bfloat16 where the hardware has it, else float16; None elsewhere."""
    if device.type != "cuda":
        return None
    return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or the machine had no memory left; only CUDA has an error class of its own for it."""
    if isinstance(error, RefusedError):
        return error.code is Code.OUT_OF_MEMORY
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    told = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in told)


def _exchange_gradients(network: torch.nn.Module, now: bool) -> AbstractContextManager[None]:
    """Devices that train together average their gradients once a step, with the last part of the batch."""
    return network.no_sync() if isinstance(network, DistributedDataParallel) and not now else nullcontext()


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
        precision = mixed_precision(device)
        with torch.autocast(device.type, dtype=precision, enabled=precision is not None):
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
