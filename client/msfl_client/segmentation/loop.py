"""One site's training in one round, and its validation: plain functions on tensors.

Legend: B batch, C contrast, L levels that have logits, R regions of lesions, P their product, D/H/W voxels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray

from msfl_client.segmentation.augmentation import flipped_axes
from msfl_client.segmentation.lesion_classes import labels_of_regions
from msfl_client.segmentation.network_input import NetworkInput
from msfl_client.segmentation.own_grid import OwnTruth, metrics_on_own_grid
from msfl_client.segmentation.patches import Batches, Patch, pad_to
from msfl_client.trainer import OnStep
from msfl_client.training.frozen import frozen_layers
from msfl_client.training.rates import make_optimizer, rate_at
from msfl_client.training.site_strategy import Start
from msfl_client.training.steps import Piece, Plan, mean_loss, mixed_precision, run_steps, whole_of
from msfl_common.config.optimisation import optimisation_of
from msfl_common.config.study import StudyConfig
from msfl_common.errors import Code, RefusedError
from msfl_common.metrics.lesion_classes import metrics_of_classes
from msfl_common.metrics.registry import CASE_METRICS
from msfl_common.metrics.segmentation import segmentation_metrics
from msfl_common.models.model_folder import LESION_THRESHOLD
from msfl_common.monai_parts import DiceCELoss, sliding_window_inference
from msfl_common.strategies.base import LOSS


def train_round(
    network: torch.nn.Module,
    loader: Batches,
    study: StudyConfig,
    round_number: int,
    device: torch.device,
    on_step: OnStep,
    micro_batches: int = 1,
    gradient_weight: float = 1.0,
    start: Start | None = None,
) -> float:
    """Train `network` in place for one round; returns the mean loss.

    Soft Dice plus cross-entropy, AdamW with fresh moments every round; see `optimisation_of` for its rate.

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
        start: what the study's strategy starts the round from; None: as federated averaging does.

    Raises:
        RefusedError: the loss or a weight became non-finite.
    """
    network.to(device).train()
    with frozen_layers(whole_of(network), study, round_number):
        plan = Plan[Patch](
            network=network,
            parameters=tuple(network.parameters()),
            device=device,
            optimizer=make_optimizer(network.parameters(), optimisation_of(study)),
            num_steps=study.training.steps_per_round,
            pieces=lambda patch: tuple(pieces_of(network, patch, device, micro_batches)),
            rate=partial(rate_at, study, round_number),
            clip_norm=study.training.clip_norm,
            gradient_weight=gradient_weight,
            sum_type=torch.float32,
            influence=start.influence(study.strategy, network, device) if start and study.strategy else None,
        )
        if start is not None and study.strategy is not None and study.strategy.asks_loss:
            start.gathered[LOSS] = mean_loss(plan, loader.batches(round_number))
        return run_steps(plan, loader.batches(round_number), round_number, on_step)


def pieces_of(network: torch.nn.Module, patch: Patch, device: torch.device, micro_batches: int) -> Iterator[Piece]:
    """Patches that go through the network in so many parts; their loss is the mean over them."""
    image_BCDHW, label_BRDHW = patch

    def piece(image_BCDHW: torch.Tensor, label_BRDHW: torch.Tensor, num_patches: int) -> Piece:
        return Piece(
            lambda: network(image_BCDHW.to(device, non_blocking=True)),
            lambda logits_BPDHW: loss_of(logits_BPDHW.float(), label_BRDHW.to(device, non_blocking=True)),
            len(image_BCDHW) / num_patches,
        )

    for parts in zip(image_BCDHW.chunk(micro_batches), label_BRDHW.chunk(micro_batches), strict=True):
        yield piece(*parts, len(image_BCDHW))


def loss_of(logits_BPDHW: torch.Tensor, label_BRDHW: torch.Tensor) -> torch.Tensor:
    """Soft Dice plus cross-entropy, mean over regions; of several levels, each counts half of the one before.

    So nnU-Net weighs its deep supervision (Isensee et al. 2021, doi 10.1038/s41592-020-01008-z).

    Args:
        logits_BPDHW: the network's in training; L levels, finest first, all at the full resolution, of R regions each.
        label_BRDHW: 1 in the lesions of a region, else 0.
    """
    measure, regions = DiceCELoss(sigmoid=True, batch=True), torch.split(label_BRDHW, 1, dim=1)

    def mean_over_regions(
        logits_BRDHW: torch.Tensor,
    ) -> torch.Tensor:  # which overlap: MONAI's of several excludes that
        maps = zip(torch.split(logits_BRDHW, 1, dim=1), regions, strict=True)
        each: list[torch.Tensor] = [measure(logits_B1DHW, label_B1DHW) for logits_B1DHW, label_B1DHW in maps]
        return torch.stack(each).mean() if len(each) > 1 else each[0]

    losses = [mean_over_regions(level) for level in torch.split(logits_BPDHW, len(regions), dim=1)]
    total: torch.Tensor = losses[0]
    for level, loss in enumerate(losses[1:], start=1):
        total = total + loss / 2**level
    return total / (2 - 2 ** (1 - len(losses))) if len(losses) > 1 else total


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or the machine had no memory left; only CUDA has an error class of its own for it."""
    if isinstance(error, RefusedError):
        return error.code is Code.OUT_OF_MEMORY
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    told = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in told)


def predict_probability(
    network: torch.nn.Module, image_CDHW: NDArray[np.float32], study: StudyConfig, device: torch.device
) -> NDArray[np.float32]:
    """Lesion probability_DHW of a prepared case, of all classes together; see `predict_regions`."""
    regions_RDHW = predict_regions(network, image_CDHW, study, device)
    return np.asarray(regions_RDHW[0])


@torch.inference_mode()
def predict_regions(
    network: torch.nn.Module, image_CDHW: NDArray[np.float32], study: StudyConfig, device: torch.device
) -> NDArray[np.float32]:
    """probability_RDHW of a prepared case: sliding windows, averaged over mirror images as the study says."""
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

    axes = [2 + axis for axis in flipped_axes(study.training.augmentation)] if study.validation.mirroring else []
    mirrored = [flips for count in range(len(axes) + 1) for flips in combinations(axes, count)]
    probability_BRDHW = windows(image_BCDHW)
    for flips in mirrored[1:]:
        probability_BRDHW = probability_BRDHW + windows(image_BCDHW.flip(flips)).flip(flips)
    probability_BRDHW = probability_BRDHW / len(mirrored)
    depth, height, width = image_CDHW.shape[1:]
    return np.asarray(probability_BRDHW[0, :, :depth, :height, :width].cpu().numpy())


def validate(
    network: torch.nn.Module,
    cases: Sequence[NetworkInput],
    study: StudyConfig,
    device: torch.device,
    on_case: Callable[[int, int], None],
    truths: Sequence[OwnTruth] = (),
) -> list[dict[str, float]]:
    """Metrics of each case; they stay at the site until they are aggregated.

    Args:
        network: the network.
        cases: on the study's grid, with their labels there.
        study: its task, windows and spacing.
        device: where to compute.
        on_case: told how many cases are done, and of how many.
        truths: the same cases' masks as they were drawn, to measure on the patients' own grids as well; none: not.
    """
    rows, metrics, classes = [], CASE_METRICS[study.task], study.inputs.lesion_classes
    spacing_mm = (study.inputs.spacing_mm,) * 3
    for number, case in enumerate(cases, start=1):
        assert case.label_DHW is not None
        probability_RDHW = predict_regions(network, case.image_CDHW, study, device)
        predicted_DHW = probability_RDHW[0] >= LESION_THRESHOLD
        row = segmentation_metrics(predicted_DHW, case.label_DHW > 0, spacing_mm, metrics)
        if classes:
            predicted = labels_of_regions(probability_RDHW, LESION_THRESHOLD)
            row |= metrics_of_classes(predicted, case.label_DHW, spacing_mm, classes)
        if truths:
            row |= metrics_on_own_grid(probability_RDHW[0], case.affine, truths[number - 1], metrics)
        rows.append(row)
        on_case(number, len(cases))
    return rows
