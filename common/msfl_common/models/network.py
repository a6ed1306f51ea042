"""The segmentation network.

Legend: B batch, C contrast, D/H/W voxels.
"""

from __future__ import annotations

import numpy as np
import torch

from msfl_common.config.study import StudyConfig
from msfl_common.models.weights import Weights
from msfl_common.monai_parts import UNet
from msfl_common.system.seeds import derive_seed

LESION_LOG_ODDS = -4.0


def build_network(study: StudyConfig) -> torch.nn.Module:
    """A 3D U-Net from `image_BCDHW` to `logits_B1DHW`, with the study's first weights.

    Instance normalisation keeps no running statistics, so nothing but weights has to be shared.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(study.seed, "weights"))
        network: torch.nn.Module = UNet(
            spatial_dims=3,
            in_channels=len(study.inputs.contrasts),
            out_channels=1,
            channels=study.model.channels,
            strides=(2,) * (len(study.model.channels) - 1),
            num_res_units=study.model.residual_units,
            norm=("INSTANCE", {"affine": True}),
        )
        # Lesions fill about a hundredth of the brain: starting there saves the steps that would unlearn 0.5.
        last = [module for module in network.modules() if isinstance(module, torch.nn.Conv3d)][-1]
        assert last.bias is not None
        torch.nn.init.constant_(last.bias, LESION_LOG_ODDS)
    return network


def get_weights(network: torch.nn.Module) -> Weights:
    """A copy of all weights as float32 arrays, in the network's own order."""
    return {name: value.detach().float().cpu().numpy().copy() for name, value in network.state_dict().items()}


def set_weights(network: torch.nn.Module, weights: Weights) -> None:
    """Load weights that `check_weights` has passed."""
    network.load_state_dict({name: torch.from_numpy(np.asarray(value)) for name, value in weights.items()})
