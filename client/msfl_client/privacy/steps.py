"""The steps of a network in which no patient counts for more than a bound, and noise hides each (DP-SGD).

Each step draws the training patients, each alone with the sampling rate (Poisson), so that it may be of nobody. Each
patient drawn goes through the network by himself, all of his pieces together; his gradient is cut to the bound, and the
sum gets Gaussian noise of the site's own (Abadi et al. 2016). It is divided by the number of patients that is expected
to be drawn, whoever was. What follows, the optimiser and its moments, knows the patients by these sums alone.

The network must not carry one patient into another's gradient, as normalisation by batch does: settings refuse those.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from msfl_client.privacy.noise import Noise
from msfl_client.privacy.round import PrivateRounds
from msfl_client.trainer import OnStep
from msfl_client.training.rates import make_optimizer, rate_at
from msfl_client.training.site_strategy import Start
from msfl_client.training.steps import Influence, Piece, mixed_precision
from msfl_common.config.differential_privacy import DifferentialPrivacy
from msfl_common.config.optimisation import optimisation_of
from msfl_common.errors import Code, RefusedError
from msfl_common.strategies.sets import flattened

_ROUNDING = 1e-6  # share of the bound that float32 may err by
_DRAWS, _NOISE = "patients", "gradients"


@dataclass(frozen=True)
class PrivatePlan:
    """A round of private training.

    Attributes:
        parameters: what the gradients are of.
        device: where.
        optimizer: of the parameters, with fresh moments.
        num_steps: draws of patients.
        rate: the learning rate of each step, from 1.
        private: noise, bound and sampling rate.
        num_patients: who may be drawn.
        noise: the site's own, of this round.
        influence: of the strategy; it sees the gradients with their noise.
    """

    parameters: Sequence[torch.Tensor]
    device: torch.device
    optimizer: torch.optim.Optimizer
    num_steps: int
    rate: Callable[[int], float]
    private: DifferentialPrivacy
    num_patients: int
    noise: Noise
    influence: Influence | None = None


def begin_round(rounds: PrivateRounds, network: torch.nn.Module, start: Start, cases: str) -> PrivatePlan:
    """Spend a round of training, on the disk, and have its plan; the network is then ready on the device.

    Args:
        rounds: the site's budget and noise.
        network: to be trained.
        start: what the round starts from.
        cases: digest of all that training sees of the cases, and of whose they are.

    Raises:
        RefusedError: the site's policy does not allow to spend it.
    """
    study, device = rounds.study, rounds.device
    assert study.differential_privacy is not None
    began_with = flattened(start.weights, {**{f"sent:{of}": one for of, one in start.sent.items()}, **start.kept})
    noise = rounds.begin(start.number, began_with, cases)
    network.to(device).train()
    return PrivatePlan(
        parameters=[parameter for parameter in network.parameters() if parameter.requires_grad],
        device=device,
        optimizer=make_optimizer(network.parameters(), optimisation_of(study)),
        num_steps=study.training.steps_per_round,
        rate=partial(rate_at, study, start.number),
        private=study.differential_privacy,
        num_patients=len(rounds.patients),
        noise=noise,
        influence=start.influence(study.strategy, network, device) if study.strategy else None,
    )


def drawn_patients(noise: Noise, private: DifferentialPrivacy, num_patients: int, step: int) -> list[int]:
    """The patients of a step, from 0; each is among them with the sampling rate, whoever else is."""
    draws = noise.uniforms(_DRAWS, step, num_patients)
    return [number for number, draw in enumerate(draws) if draw < (private.sampling_rate or 1.0)]


def run_private_steps(
    plan: PrivatePlan, passes: Iterator[Sequence[Piece]], round_number: int, on_step: OnStep
) -> float:
    """Train in place for one round; returns the mean loss over the patients drawn, which must not leave the site.

    Args:
        plan: how.
        passes: the pieces of each patient drawn, step by step in the order of `drawn_patients`.
        round_number: for the words of an error.
        on_step: called after each step; it may raise to stop.

    Raises:
        RefusedError: a parameter became non-finite.
    """
    total, num_drawn = torch.zeros((), dtype=torch.float64, device=plan.device), 0
    for step in range(1, plan.num_steps + 1):
        for group in plan.optimizer.param_groups:
            group["lr"] = plan.rate(step)
        sums = [torch.zeros_like(parameter) for parameter in plan.parameters]
        for _ in drawn_patients(plan.noise, plan.private, plan.num_patients, step):
            total += _add_patient(plan, next(passes), sums)
            num_drawn += 1
        _set_gradients(plan, sums, step)
        plan.optimizer.step()
        on_step(step, plan.num_steps, float(total) / max(num_drawn, 1))
    if not all(bool(parameter.isfinite().all()) for parameter in plan.parameters):
        raise RefusedError(Code.TRAINING_DIVERGED, f"weights in round {round_number}")
    return float(total) / max(num_drawn, 1)


def _add_patient(plan: PrivatePlan, pieces: Sequence[Piece], sums: list[torch.Tensor]) -> torch.Tensor:
    """One patient forward and backward; his gradient, cut to the bound, is added to `sums`. Returns his loss."""
    short = mixed_precision(plan.device)
    precision = short if short is torch.bfloat16 else None  # float16 needs a scale that depends on the patients
    plan.optimizer.zero_grad(set_to_none=True)
    loss_of_patient = torch.zeros((), dtype=torch.float64, device=plan.device)
    for piece in pieces:
        with torch.autocast(plan.device.type, dtype=precision, enabled=precision is not None):
            output = piece.forward()
        loss = piece.loss(output) * piece.share
        torch.autograd.backward(loss)
        loss_of_patient += loss.detach()
    gradients = [
        torch.zeros_like(parameter) if parameter.grad is None else parameter.grad for parameter in plan.parameters
    ]
    clip_and_add(gradients, plan.private.max_gradient_norm, sums)
    return loss_of_patient


def clip_and_add(gradients: Sequence[torch.Tensor], bound: float, sums: list[torch.Tensor]) -> None:
    """Add a gradient to `sums`, cut to the bound (L2) where it is longer; what is not finite in it counts as 0."""
    for gradient in gradients:
        gradient.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
    norms = torch.stack([torch.linalg.vector_norm(gradient, dtype=torch.float64) for gradient in gradients])
    norm = torch.linalg.vector_norm(norms)
    factor = ((1 - _ROUNDING) * bound / norm.clamp(min=1e-300)).clamp(max=1.0).float()
    for total, gradient in zip(sums, gradients, strict=True):
        total.addcmul_(gradient, factor)


def _set_gradients(plan: PrivatePlan, sums: Sequence[torch.Tensor], step: int) -> None:
    """The step's gradients: sums and noise over the number of patients expected, and what the strategy makes of it."""
    private = plan.private
    expected = plan.num_patients * (private.sampling_rate or 1.0)
    if private.promises:
        count = sum(value.numel() for value in sums)
        normals = plan.noise.normals(_NOISE, step, count, plan.device)
        scale = private.noise_multiplier * private.max_gradient_norm
        for value, drawn in zip(sums, torch.split(normals, [value.numel() for value in sums]), strict=True):
            value.add_(drawn.view_as(value), alpha=scale)
    for parameter, value in zip(plan.parameters, sums, strict=True):
        parameter.grad = value / expected
    if plan.influence is not None:
        influence = plan.influence.at(step, plan.num_steps, plan.rate(step))
        term = influence.loss_term()
        if term is not None:
            torch.autograd.backward(term)
        influence.adjust_gradients()
