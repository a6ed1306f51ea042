"""The optimiser of a round, and its learning rate in each step."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

from msfl_common.config.optimisation import Optimisation, optimisation_of
from msfl_common.config.study import StudyConfig


def rate_at(study: StudyConfig, round_number: int, step: int) -> float:
    """The learning rate of a step, from 1: constant, or falling to 0 over all steps of all rounds (cosine)."""
    used, steps = optimisation_of(study), study.training.steps_per_round
    if not used.decays:
        return used.learning_rate
    progress = ((round_number - 1) * steps + step - 1) / (study.rounds.num_rounds * steps)
    return 0.5 * used.learning_rate * (1.0 + math.cos(math.pi * progress))


def make_optimizer(parameters: Iterable[torch.Tensor], used: Optimisation) -> torch.optim.Optimizer:
    """PyTorch's optimiser, with fresh moments."""
    kinds: dict[str, type[torch.optim.Adam | torch.optim.NAdam | torch.optim.AdamW]] = {
        "Adam": torch.optim.Adam,
        "NAdam": torch.optim.NAdam,
        "AdamW": torch.optim.AdamW,
    }
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    return kinds[used.optimiser](trained, lr=used.learning_rate, weight_decay=used.weight_decay)
