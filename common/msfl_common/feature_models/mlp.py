"""A multi-layer perceptron on arrays: rectified linear units, a score for each class, and softmax over these.

Its layers are `layer0_weight` (units out x in), `layer0_bias` and so on.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from msfl_common.config.classification import MlpModel
from msfl_common.system.seeds import derive_seed

Floats = NDArray[np.float64]


def first_layers(model: MlpModel, num_prepared: int, num_classes: int, seed: int) -> dict[str, Floats]:
    """Layers drawn after He et al. 2015; biases are 0."""
    rng = np.random.default_rng(derive_seed(seed, "mlp"))
    sizes = (num_prepared, *model.hidden, num_classes)
    layers: dict[str, Floats] = {}
    for number, (num_in, num_out) in enumerate(pairwise(sizes)):
        layers[f"layer{number}_weight"] = rng.normal(0, np.sqrt(2 / num_in), (num_out, num_in))
        layers[f"layer{number}_bias"] = np.zeros(num_out)
    return layers


def scores_of(model: MlpModel, state: dict[str, Floats], prepared_NQ: Floats) -> Floats:
    """The scores of N cases before softmax, N x K."""
    hidden = prepared_NQ
    for number in range(len(model.hidden) + 1):
        hidden = hidden @ state[f"layer{number}_weight"].T + state[f"layer{number}_bias"]
        if number < len(model.hidden):
            hidden = np.maximum(hidden, 0.0)
    return hidden
