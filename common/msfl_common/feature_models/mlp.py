"""A multi-layer perceptron: rectified linear units, a score for each class, and softmax over these.

Its layers are `layer0_weight` (units out x in), `layer0_bias` and so on.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from msfl_common.feature_models.model import Answer, FeatureModel
from msfl_common.feature_models.scores import joint_probabilities
from msfl_common.feature_models.settings import Settings, num_groups
from msfl_common.feature_models.state import Floats, State
from msfl_common.system.seeds import derive_seed


class MlpModel(FeatureModel):
    """A multi-layer perceptron, by federated averaging."""

    kind: Literal["mlp"] = Field(description="which model")
    hidden: tuple[Annotated[int, Field(ge=1, le=1024)], ...] = Field(
        (32,), min_length=1, max_length=5, description="units of each hidden layer"
    )
    learning_rate: float = Field(1e-2, gt=0, le=1, description="Adam's")
    weight_decay: float = Field(
        1e-3,
        ge=0,
        le=100,
        description="decoupled weight decay; with some ten cases an input, 10 keeps it from overfitting",
    )
    epochs_per_round: int = Field(5, ge=1, le=1000, description="passes over a site's cases in a round")

    answers_sums: ClassVar[bool] = False
    most_fits: ClassVar[int | None] = None
    draws_anew: ClassVar[bool] = True
    moving: ClassVar[tuple[str, ...]] = ("layer",)
    uses_shares: ClassVar[bool] = True
    averages: ClassVar[bool] = True
    sums_suffice: ClassVar[bool] = True
    can_go_back: ClassVar[bool] = True

    def first_arrays(self, settings: Settings, num_prepared: int, seed: int) -> State:
        """Layers drawn after He et al. 2015; biases are 0."""
        rng = np.random.default_rng(derive_seed(seed, "mlp"))
        sizes = (num_prepared, *self.hidden, num_groups(settings))
        layers: State = {}
        for number, (num_in, num_out) in enumerate(pairwise(sizes)):
            layers[f"layer{number}_weight"] = rng.normal(0, np.sqrt(2 / num_in), (num_out, num_in))
            layers[f"layer{number}_bias"] = np.zeros(num_out)
        return layers

    def answer_like(self, state: State) -> State:
        """See `FeatureModel`."""
        return {name: value for name, value in state.items() if name.startswith("layer")}

    def fewest_numbers(self, first: State) -> int:
        """See `FeatureModel`: layers are no sums that a bound could be put on."""
        del first
        return 0

    def check_answer(self, state: State, answer: State, num_cases: int) -> None:
        """See `FeatureModel`: any layers may come of some cases; how far they go is held against the others'."""

    def next_state(self, state: State, answers: Sequence[Answer]) -> State:
        """See `FeatureModel`: the mean of the layers."""
        share_S = np.array([one.share for one in answers])
        return state | {
            name: np.tensordot(share_S, np.stack([one.arrays[name] for one in answers]), axes=1)
            for name in answers[0].arrays
        }

    def probabilities(self, state: State, prepared_NQ: Floats) -> Floats:
        """See `FeatureModel`."""
        return joint_probabilities(self.scores(state, prepared_NQ))

    def scores(self, state: State, prepared_NQ: Floats) -> Floats:
        """What the last layer gives, N x K."""
        hidden = prepared_NQ
        for number in range(len(self.hidden) + 1):
            hidden = hidden @ state[f"layer{number}_weight"].T + state[f"layer{number}_bias"]
            if number < len(self.hidden):
                hidden = np.maximum(hidden, 0.0)
        return hidden
