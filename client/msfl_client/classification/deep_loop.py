"""One site's training of a deep model in one round, its predictions, and what they rest on.

Legend: B batch, N sequences, V visits, C contrast, D/H/W slices and pixels, E clinical values and features, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from msfl_client.classification.visit_sequences import Item, SequenceBatch, VisitSequence, make_batch, round_batches
from msfl_client.trainer import OnStep
from msfl_client.training.frozen import frozen_layers
from msfl_client.training.rates import make_optimizer, rate_at
from msfl_client.training.site_strategy import Start
from msfl_client.training.steps import Piece, Plan, mean_loss, mixed_precision, run_steps
from msfl_common.config.optimisation import optimisation_of
from msfl_common.config.study import StudyConfig
from msfl_common.models.deep_models import VisitClassifier, deep_settings
from msfl_common.strategies.base import LOSS
from msfl_common.system.seeds import derive_seed


def train_round(
    network: VisitClassifier,
    sequences: Sequence[VisitSequence],
    study: StudyConfig,
    round_number: int,
    device: torch.device,
    on_step: OnStep,
    micro_batches: int = 1,
    start: Start | None = None,
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
        start: what the study's strategy starts the round from; None: as federated averaging does.

    Raises:
        RefusedError: the loss or a weight became non-finite.
        CaseError: a volume cannot be read.
    """
    network.to(device).train()
    weights_K = class_weights(study).to(device)

    def pieces(items: Sequence[Item]) -> Iterator[Piece]:
        total = weights_K[torch.tensor([sequence.label for sequence, _ in items], device=device)].sum()
        for rows in np.array_split(np.arange(len(items)), min(micro_batches, len(items))):
            yield piece_of(network, [items[row] for row in rows], study, weights_K, total)

    with frozen_layers(network, study, round_number):
        plan = Plan[Sequence[Item]](
            network=network,
            parameters=tuple(network.parameters()),
            device=device,
            optimizer=make_optimizer(network.parameters(), optimisation_of(study)),
            num_steps=study.training.steps_per_round,
            pieces=lambda items: tuple(pieces(items)),
            rate=partial(rate_at, study, round_number),
            clip_norm=study.training.clip_norm,
            influence=start.influence(study.strategy, network, device) if start and study.strategy else None,
        )
        if start is not None and study.strategy is not None and study.strategy.asks_loss:
            start.gathered[LOSS] = mean_loss(plan, round_batches(sequences, study, round_number))
        with seeded(derive_seed(study.seed, "dropout", round_number), device):
            return run_steps(plan, round_batches(sequences, study, round_number), round_number, on_step)


def piece_of(
    network: VisitClassifier, items: Sequence[Item], study: StudyConfig, weights_K: torch.Tensor, total: torch.Tensor
) -> Piece:
    """Part of a batch; its loss is its share of the classes' weighted mean over the whole, of `total` weight."""
    labels_B = torch.tensor([sequence.label for sequence, _ in items], device=weights_K.device)

    def forward() -> torch.Tensor:
        batch = make_batch([sequence for sequence, _ in items], study, [noise for _, noise in items])
        return _forward(network, batch.to(weights_K.device))

    def loss(logits_BK: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(logits_BK.float(), labels_B, weights_K, reduction="sum") / total

    return Piece(forward, loss)


def class_weights(study: StudyConfig) -> torch.Tensor:
    """weights_K of the loss: 1, and the model's `positive_weight` for the last class."""
    settings, model = deep_settings(study)
    weights_K = torch.ones(len(settings.outcome.classes))
    weights_K[-1] = model.positive_weight
    return weights_K


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
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Dropout that depends on the seed alone, and leaves everybody else's random numbers as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
