"""A site's round of a perceptron: some passes over its cases, from the shared layers."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from msfl_client.classification.feature_models.site_half import Asked, SiteHalf
from msfl_common.errors import Code, RefusedError
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
    labels_N: NDArray[np.int64],
    seed: int,
    round_number: int,
) -> State:
    """The layers after a round: cross-entropy, Adam with decoupled weight decay and fresh moments, batches of 32.

    Raises:
        RefusedError: a value became non-finite.
    """
    layers = {
        name: torch.tensor(value, dtype=torch.float64, requires_grad=True)
        for name, value in state.items()
        if name.startswith("layer")
    }
    optimizer = torch.optim.AdamW(layers.values(), lr=model.learning_rate, weight_decay=model.weight_decay)
    inputs_NQ, labels = torch.as_tensor(prepared_NQ), torch.as_tensor(labels_N)
    rng = np.random.default_rng(derive_seed(seed, "mlp", round_number))
    for _ in range(model.epochs_per_round):
        order = torch.as_tensor(rng.permutation(len(labels_N)))
        for start in range(0, len(order), _BATCH):
            batch = order[start : start + _BATCH]
            optimizer.zero_grad(set_to_none=True)
            loss = torch.nn.functional.cross_entropy(_scores(model, layers, inputs_NQ[batch]), labels[batch])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    trained = {name: value.detach().numpy() for name, value in layers.items()}
    if not all(np.isfinite(value).all() for value in trained.values()):
        raise RefusedError(Code.TRAINING_DIVERGED, f"layers in round {round_number}")
    return trained


def _scores(model: MlpModel, layers: dict[str, torch.Tensor], hidden: torch.Tensor) -> torch.Tensor:
    for number in range(len(model.hidden) + 1):
        hidden = torch.nn.functional.linear(hidden, layers[f"layer{number}_weight"], layers[f"layer{number}_bias"])
        if number < len(model.hidden):
            hidden = hidden.relu()
    return hidden
