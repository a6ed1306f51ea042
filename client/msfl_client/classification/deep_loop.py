"""One site's training of a deep model in one round, its predictions, and what they rest on.

Legend: B batch, N sequences, V visits, C contrast, D/H/W slices and pixels, E clinical values and features, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from msfl_client.classification.visit_sequences import Item, SequenceBatch, VisitSequence, make_batch, round_batches
from msfl_client.segmentation.loop import learning_rate, mixed_precision
from msfl_client.trainer import OnStep
from msfl_common.config.study import StudyConfig, Training
from msfl_common.errors import Code, RefusedError
from msfl_common.models.deep_models import VisitClassifier, deep_settings
from msfl_common.system.seeds import derive_seed

# Barulina et al. 2026, section 4; constant over all epochs.
_PAPERS_RATE = {"resnet3d": 1e-4, "pretrained-resnet2d": 1e-4, "resnext": 1e-3}
_NADAM_WEIGHT_DECAY = 0.05


def train_round(
    network: VisitClassifier,
    sequences: Sequence[VisitSequence],
    study: StudyConfig,
    round_number: int,
    device: torch.device,
    on_step: OnStep,
    micro_batches: int = 1,
) -> float:
    """Train `network` in place for one round; returns the mean loss.

    Cross-entropy with weight 1, and `positive_weight` for the last class; the optimiser starts afresh every round.

    Args:
        network: of `build_classifier`.
        sequences: the site's training sequences, at least one.
        study: model, steps and rates.
        round_number: from 1.
        device: where to train.
        on_step: called after each step; it may raise to stop.
        micro_batches: parts in which each batch goes through the network, to take less memory. The loss is that of
            the whole batch; batch normalisation sees a part at a time.

    Raises:
        RefusedError: the loss became non-finite.
        CaseError: a volume cannot be read.
    """
    network.to(device).train()
    optimizer = make_optimizer(network, study)
    # bfloat16 reaches as far as float32 and needs no scaling.
    scaler = torch.amp.GradScaler(enabled=mixed_precision(device) is torch.float16)
    total = 0.0
    with _seeded(derive_seed(study.seed, "dropout", round_number), device):
        for step, items in enumerate(round_batches(sequences, study, round_number), start=1):
            for group in optimizer.param_groups:
                group["lr"] = rate_of(study, round_number, step)
            optimizer.zero_grad(set_to_none=True)
            total += _accumulate_gradients(network, items, study, device, scaler, micro_batches)
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(network.parameters(), study.training.clip_norm)
            scaler.step(optimizer)
            scaler.update()
            on_step(step, study.training.steps_per_round, total / step)
    mean_loss = total / study.training.steps_per_round
    if not math.isfinite(mean_loss):
        raise RefusedError(Code.TRAINING_DIVERGED, f"mean loss {mean_loss} in round {round_number}")
    return mean_loss


def _accumulate_gradients(
    network: VisitClassifier,
    items: Sequence[Item],
    study: StudyConfig,
    device: torch.device,
    scaler: torch.amp.GradScaler,
    num_parts: int,
) -> float:
    """One batch forward and backward, a part at a time; returns its loss: the classes' weighted mean."""
    precision = mixed_precision(device)
    weights_K = class_weights(study).to(device)
    labels_B = torch.tensor([sequence.label for sequence, _ in items], device=device)
    total = 0.0
    for rows in np.array_split(np.arange(len(items)), min(num_parts, len(items))):
        batch = make_batch([items[row][0] for row in rows], study, [items[row][1] for row in rows]).to(device)
        with torch.autocast(device.type, dtype=precision, enabled=precision is not None):
            logits_BK = _forward(network, batch)
        summed = functional.cross_entropy(logits_BK.float(), labels_B[rows], weights_K, reduction="sum")
        loss = summed / weights_K[labels_B].sum()
        torch.autograd.backward(scaler.scale(loss))
        total += float(loss.detach())
    return total


def class_weights(study: StudyConfig) -> torch.Tensor:
    """weights_K of the loss: 1, and the model's `positive_weight` for the last class."""
    settings, model = deep_settings(study)
    weights_K = torch.ones(len(settings.outcome.classes))
    weights_K[-1] = model.positive_weight
    return weights_K


def make_optimizer(network: torch.nn.Module, study: StudyConfig) -> torch.optim.Optimizer:
    """The paper's for its three models: Adam, and Nadam with weight decay for ResNeXt; AdamW for lesion-encoder.

    The paper does not say how its weight decay acts; here as in PyTorch's NAdam, as part of the gradient.
    """
    _, model = deep_settings(study)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if model.kind == "lesion-encoder":
        return torch.optim.AdamW(trained, weight_decay=study.training.weight_decay)
    if model.kind == "resnext":
        return torch.optim.NAdam(trained, weight_decay=_NADAM_WEIGHT_DECAY)
    return torch.optim.Adam(trained)


def rate_of(study: StudyConfig, round_number: int, step: int) -> float:
    """The paper's constant rate for its models, unless `training.learning_rate` differs from its default.

    Then, and for lesion-encoder, that rate with its cosine decay; see `training.learning_rate`.
    """
    _, model = deep_settings(study)
    if model.kind in _PAPERS_RATE and study.training.learning_rate == Training().learning_rate:
        return _PAPERS_RATE[model.kind]
    return learning_rate(study, round_number, step)


@torch.inference_mode()
def predict(
    network: VisitClassifier,
    sequences: Sequence[VisitSequence],
    study: StudyConfig,
    device: torch.device,
    on_case: Callable[[int, int], None] = lambda *_: None,
) -> NDArray[np.float64]:
    """probabilities_NK, a row for each sequence; one after the other, so that none depends on the others."""
    network.to(device).eval()
    precision = mixed_precision(device)
    settings, _ = deep_settings(study)
    probabilities_NK = np.empty((len(sequences), len(settings.outcome.classes)))
    for row, sequence in enumerate(sequences):
        with torch.autocast(device.type, dtype=precision, enabled=precision is not None):
            logits_1K = _forward(network, make_batch([sequence], study).to(device))
        probabilities_NK[row] = logits_1K[0].double().softmax(dim=0).cpu().numpy()
        on_case(row + 1, len(sequences))
    return probabilities_NK


@dataclass(frozen=True)
class Saliency:
    """How much each input speaks for a class: gradient of its log-odds times the input.

    Attributes:
        volumes_VCDHW: for the voxels of the visits that the model looked at, on the grid of their volumes.
        clinical_VE: for their clinical values and features.
    """

    volumes_VCDHW: NDArray[np.float32]
    clinical_VE: NDArray[np.float32]


def saliency(network: VisitClassifier, sequence: VisitSequence, study: StudyConfig, device: torch.device) -> Saliency:
    """What speaks for the last of two classes or, of more, for the most probable.

    Gradient times input (Shrikumar et al. 2016): cheap, and a hint rather than a proof. Volumes are what predictions
    are from; a contrast that is missing has none.
    """
    network.to(device).eval()
    batch = make_batch([sequence], study).to(device)
    images, clinical = batch.images_BVCDHW.requires_grad_(), batch.clinical_BVE.requires_grad_()
    with torch.backends.cudnn.flags(enabled=False):  # its recurrent networks have no gradient outside training
        logits_K = network(images, clinical, batch.present_BV)[0]
        chosen = 1 if len(logits_K) == 2 else int(logits_K.argmax())
        others = [k for k in range(len(logits_K)) if k != chosen]
        log_odds = logits_K[chosen] - logits_K[others].logsumexp(dim=0)
        of_images, of_clinical = torch.autograd.grad(log_odds, (images, clinical), allow_unused=True)
    zeros = torch.zeros_like(images) if of_images is None else of_images  # no visit with an image
    return Saliency((zeros * images)[0].detach().cpu().numpy(), (of_clinical * clinical)[0].detach().cpu().numpy())


def _forward(network: VisitClassifier, batch: SequenceBatch) -> torch.Tensor:
    logits_BK: torch.Tensor = network(batch.images_BVCDHW, batch.clinical_BVE, batch.present_BV)
    return logits_BK


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Dropout that depends on the seed alone, and leaves everybody else's random numbers as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
