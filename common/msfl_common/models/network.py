"""The network of a study as it is trained, and its weights as arrays.

Legend: B batch, C contrast, R regions of lesions, D/H/W voxels.
"""

from __future__ import annotations

import numpy as np
import torch

from msfl_common.config.study import StudyConfig
from msfl_common.models.weights import Weights
from msfl_common.system.seeds import derive_seed


def build_network(study: StudyConfig) -> torch.nn.Module:
    """The study's segmentation network from `image_BCDHW` to `logits_BRDHW`, with its first weights.

    The first region is of all lesions, whatever their class, and each further one of a class; see `Inputs.num_regions`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(study.seed, "weights"))
        return study.network.build(len(study.inputs.channels), study.inputs.num_regions)


def get_weights(network: torch.nn.Module) -> Weights:
    """A copy of all weights as float32 arrays, in the network's own order."""
    return {name: value.detach().float().cpu().numpy().copy() for name, value in network.state_dict().items()}


def set_weights(network: torch.nn.Module, weights: Weights) -> None:
    """Load weights that `check_weights` has passed."""
    network.load_state_dict({name: torch.from_numpy(np.asarray(value)) for name, value in weights.items()})
