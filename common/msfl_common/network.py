"""The segmentation network and its weights as plain arrays.

Legend: B batch, C contrast, D/H/W voxels.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from monai.networks.nets import UNet
from numpy.typing import NDArray

from msfl_common.config import StudyConfig
from msfl_common.errors import UpdateError
from msfl_common.seeds import derive_seed

LESION_LOG_ODDS = -4.0
# A voxel is lesion from this probability on. On simulated validation cases DSC is the same from 0.3 to 0.5 and
# more lesions are found at 0.3; on scanners the model has not seen, probabilities run low.
LESION_THRESHOLD = 0.3

Weights = dict[str, NDArray[np.float32]]


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
    network.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})


def check_weights(found: Mapping[str, NDArray[np.float32]], expected: Mapping[str, NDArray[np.float32]]) -> None:
    """Refuse weights that do not fit.

    Raises:
        UpdateError: other names, another shape or type, or a value that is not finite.
    """
    if list(found) != list(expected):
        strange = sorted(set(found) ^ set(expected))[:3]
        raise UpdateError(f"expected {len(expected)} arrays, found {len(found)}; they differ in {strange or 'order'}")
    for name, reference in expected.items():
        array = found[name]
        if array.shape != reference.shape or array.dtype != reference.dtype:
            raise UpdateError(f"{name}: expected {reference.dtype}{reference.shape}, found {array.dtype}{array.shape}")
        if not np.isfinite(array).all():
            raise UpdateError(f"{name}: {int((~np.isfinite(array)).sum())} values are not finite")
