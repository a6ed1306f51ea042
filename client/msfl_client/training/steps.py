"""The one training loop: of segmentations, deep models and perceptrons.

Legend: B batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import torch
from torch.nn.parallel import DistributedDataParallel

from msfl_client.trainer import OnStep
from msfl_common.errors import Code, RefusedError
from msfl_common.strategies.base import Local, Strategy

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class Piece:
    """What of a batch goes through the network at once.

    Attributes:
        forward: the network's output; computed in the device's short precision, if it has one.
        loss: of that output.
        share: factor on the loss; those of a batch make its loss together.
    """

    forward: Callable[[], torch.Tensor]
    loss: Callable[[torch.Tensor], torch.Tensor]
    share: float = 1.0


@dataclass(frozen=True)
class Influence:
    """What a strategy changes in the steps of a training; only kinds with rules of their own make one."""

    strategy: Strategy
    local: Local

    def at(self, step: int, num_steps: int, rate: float) -> Influence:
        """The same in a step of the round, from 1."""
        return replace(self, local=replace(self.local, step=step, num_steps=num_steps, rate=rate))

    def adjust_gradients(self) -> None:
        """What the strategy makes of the step's gradients."""
        with torch.no_grad():
            self.strategy.adjust_gradients(self.local)

    def loss_term(self) -> torch.Tensor | None:
        """What the strategy adds to the step's loss.

        Raises:
            TypeError: it is not one number.
        """
        term = self.strategy.loss_term(self.local)
        if term is not None:
            _expect_scalar(term)
        return term


@dataclass(frozen=True)
class Plan(Generic[Batch]):
    """A round of training.

    Attributes:
        network: what is trained; of several devices, its DistributedDataParallel.
        parameters: what the gradients are of.
        device: where.
        optimizer: of the parameters, with fresh moments.
        num_steps: batches.
        pieces: a batch in its pieces.
        rate: the learning rate of each step, from 1.
        clip_norm: largest norm of the gradients (L2); None: any.
        gradient_weight: factor on the gradients, for devices whose shares are of unequal size.
        sum_type: in which losses are added up.
        influence: of the strategy.
    """

    network: torch.nn.Module | None
    parameters: Sequence[torch.Tensor]
    device: torch.device
    optimizer: torch.optim.Optimizer
    num_steps: int
    pieces: Callable[[Batch], Sequence[Piece]]
    rate: Callable[[int], float]
    clip_norm: float | None = None
    gradient_weight: float = 1.0
    sum_type: torch.dtype = torch.float64
    influence: Influence | None = None

    @property
    def sums_in(self) -> torch.dtype:
        """`sum_type`, where the device has it: Apple's GPUs have no float64."""
        return torch.float32 if self.device.type == "mps" else self.sum_type


def run_steps(plan: Plan[Batch], batches: Iterable[Batch], round_number: int, on_step: OnStep) -> float:
    """Train in place for one round; returns the mean loss, without what a strategy adds to it.

    Args:
        plan: how.
        batches: `num_steps` of them.
        round_number: for the words of an error.
        on_step: called after each step; it may raise to stop.

    Raises:
        RefusedError: the loss or a parameter became non-finite.
    """
    # bfloat16 reaches as far as float32 and needs no scaling.
    scaler = torch.amp.GradScaler(enabled=mixed_precision(plan.device) is torch.float16)
    total = torch.zeros((), dtype=plan.sums_in, device=plan.device)
    for step, batch in enumerate(batches, start=1):
        rate = plan.rate(step)
        influence = plan.influence.at(step, plan.num_steps, rate) if plan.influence else None
        for group in plan.optimizer.param_groups:
            group["lr"] = rate
        plan.optimizer.zero_grad(set_to_none=True)
        _accumulate_gradients(plan, plan.pieces(batch), scaler, total, influence)
        scaler.unscale_(plan.optimizer)
        if influence is not None:
            influence.adjust_gradients()
        if plan.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(plan.parameters, plan.clip_norm)
        scaler.step(plan.optimizer)
        scaler.update()
        on_step(step, plan.num_steps, float(total) / step)
    mean_loss = float(total) / plan.num_steps
    if not math.isfinite(mean_loss):
        raise RefusedError(Code.TRAINING_DIVERGED, f"mean loss {mean_loss} in round {round_number}")
    if not all(bool(parameter.isfinite().all()) for parameter in plan.parameters):
        raise RefusedError(Code.TRAINING_DIVERGED, f"weights in round {round_number}")
    return mean_loss


@torch.no_grad()
def mean_loss(plan: Plan[Batch], batches: Iterable[Batch]) -> torch.Tensor:
    """The mean loss of batches at the network's weights as they are; its statistics stay as they are, too."""
    assert plan.network is not None
    trains = {module for module in plan.network.modules() if module.training}
    plan.network.eval()
    losses, precision = [], mixed_precision(plan.device)
    for batch in batches:
        parts = []
        for piece in plan.pieces(batch):
            with torch.autocast(plan.device.type, dtype=precision, enabled=precision is not None):
                output = piece.forward()
            parts.append(piece.loss(output).to(plan.sums_in) * piece.share)
        losses.append(torch.stack(parts).sum())
    for module in plan.network.modules():
        module.training = module in trains
    return torch.stack(losses).mean()


def _accumulate_gradients(
    plan: Plan[Batch],
    pieces: Sequence[Piece],
    scaler: torch.amp.GradScaler,
    total: torch.Tensor,
    influence: Influence | None,
) -> None:
    """A batch forward and backward, piece by piece; its loss is added to `total`."""
    precision = mixed_precision(plan.device)
    for number, piece in enumerate(pieces, start=1):
        is_last = number == len(pieces)
        with _exchange_gradients(plan.network, is_last):
            with torch.autocast(plan.device.type, dtype=precision, enabled=precision is not None):
                output = piece.forward()
            loss = piece.loss(output)
            aim = loss * (piece.share * plan.gradient_weight)
            # Once a step; devices that train together each add it whole, and take the mean.
            term = influence.loss_term() if influence and is_last else None
            torch.autograd.backward(scaler.scale(aim if term is None else aim + term))
        total += loss.detach() * piece.share


def _expect_scalar(term: object) -> None:
    """Hold what a strategy adds to a loss to be one number.

    Raises:
        TypeError: it is something else.
    """
    found = tuple(term.shape) if isinstance(term, torch.Tensor) else type(term).__name__
    if not isinstance(term, torch.Tensor) or term.numel() != 1:
        raise TypeError(f"strategy's loss_term: expected a tensor of one number, found {found}")


def influence_of(strategy: Strategy, local: Callable[[], Local]) -> Influence | None:
    """What a strategy changes in the steps; None where it changes nothing, and nothing is made for it."""
    changes = strategy.overrides("loss_term") or strategy.overrides("adjust_gradients")
    return Influence(strategy, local()) if changes else None


def trained_parameters(network: torch.nn.Module) -> Mapping[str, torch.nn.Parameter]:
    """The parameters of a network that are trained, by the names that its weights have."""
    return {name: value for name, value in whole_of(network).named_parameters() if value.requires_grad}


def whole_of(network: torch.nn.Module) -> torch.nn.Module:
    """The network itself, without what lets several devices train it."""
    whole: torch.nn.Module = network.module if isinstance(network, DistributedDataParallel) else network
    return whole


def mixed_precision(device: torch.device) -> torch.dtype | None:
    """The short type that a GPU computes in: bfloat16 where the hardware has it, else float16; None elsewhere."""
    if device.type != "cuda":
        return None
    return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16


def _exchange_gradients(network: torch.nn.Module | None, now: bool) -> AbstractContextManager[None]:
    """Devices that train together average their gradients once a step, with the last piece of the batch."""
    return network.no_sync() if isinstance(network, DistributedDataParallel) and not now else nullcontext()
