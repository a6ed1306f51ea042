"""A site's round of a perceptron: some passes over its cases, from the shared layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from msfl_client.classification.feature_models.site_half import Asked, SiteHalf
from msfl_client.training.rates import make_optimizer
from msfl_client.training.steps import Piece, Plan, run_steps
from msfl_common.config.optimisation import Optimisation
from msfl_common.feature_models import State
from msfl_common.feature_models.mlp import MlpModel
from msfl_common.system.seeds import derive_seed

_BATCH = 32  # cases


class MlpModelSite(SiteHalf[MlpModel]):
    """Layers: what some passes over all cases made of the shared ones; no bound on what they show."""

    def answer(self, asked: Asked) -> State:
        """See `SiteHalf`."""
        return train_layers(
            self.model, asked.state, asked.prepared_NQ, asked.cases.labels_N, asked.seed, asked.round_number
        )


def train_layers(
    model: MlpModel,
    state: State,
    prepared_NQ: NDArray[np.float64],
    labels_N: NDArray[np.int64] | NDArray[np.float64],
    seed: int,
    round_number: int,
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = torch.nn.functional.cross_entropy,
) -> State:
    """The layers after a round: Adam with decoupled weight decay and fresh moments, batches of 32.

    The loss is cross-entropy, or another of scores and labels.

    Raises:
        RefusedError: the loss or a layer became non-finite.
    """
    layers = {
        name: torch.tensor(value, dtype=torch.float64, requires_grad=True)
        for name, value in state.items()
        if name.startswith("layer")
    }
    inputs_NQ, labels_of = torch.as_tensor(prepared_NQ), torch.as_tensor(labels_N)

    def pieces(cases_B: torch.Tensor) -> Sequence[Piece]:
        return [
            Piece(
                lambda: _scores(model, layers, inputs_NQ[cases_B]),
                lambda scores_BK: loss(scores_BK, labels_of[cases_B]),
            )
        ]

    used = Optimisation("AdamW", model.learning_rate, model.weight_decay)
    plan = Plan[torch.Tensor](
        network=None,
        parameters=tuple(layers.values()),
        device=torch.device("cpu"),
        optimizer=make_optimizer(layers.values(), used),
        num_steps=model.epochs_per_round * -(-len(labels_N) // _BATCH),
        pieces=pieces,
        rate=lambda _: used.learning_rate,
    )
    run_steps(plan, _batches(model, len(labels_N), seed, round_number), round_number, lambda *_: None)
    return {name: value.detach().numpy() for name, value in layers.items()}


def _batches(model: MlpModel, num_cases: int, seed: int, round_number: int) -> Iterator[torch.Tensor]:
    """Which cases each step is of: shuffled passes over all of them."""
    rng = np.random.default_rng(derive_seed(seed, "mlp", round_number))
    for _ in range(model.epochs_per_round):
        yield from torch.split(torch.as_tensor(rng.permutation(num_cases)), _BATCH)


def _scores(model: MlpModel, layers: dict[str, torch.Tensor], hidden: torch.Tensor) -> torch.Tensor:
    for number in range(len(model.hidden) + 1):
        hidden = torch.nn.functional.linear(hidden, layers[f"layer{number}_weight"], layers[f"layer{number}_bias"])
        if number < len(model.hidden):
            hidden = hidden.relu()
    return hidden
