"""The segmentation network. Run as a program, it writes a study's first weights; see `msfl_common.weights`.

Legend: B batch, C contrast, D/H/W voxels.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from msfl_common.config import StudyConfig, parse_study
from msfl_common.config_classification import DeepModel
from msfl_common.errors import ConfigError, InputError
from msfl_common.feature_models import first_state
from msfl_common.monai_parts import UNet
from msfl_common.seeds import derive_seed
from msfl_common.weights import ORDER, Weights, to_safetensors

LESION_LOG_ODDS = -4.0
MOST_PARAMETERS = 100_000_000  # of any network: three times what the largest of the papers has


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


def weights_like(study: StudyConfig) -> Weights:
    """Names, shapes and types of a study's weights, as arrays that take no memory: all of their values are one 0.

    Raises:
        ConfigError: there are more than any study may have.
    """
    settings = study.classification
    if settings is not None and not isinstance(settings.model, DeepModel):
        return {name: _like(value.shape, value.dtype) for name, value in first_state(settings, 0).items()}
    from msfl_common.deep_models import build_classifier  # which builds on this module

    with torch.device("meta"):
        state = (build_network(study) if settings is None else build_classifier(study)).state_dict()
    num_values = sum(value.numel() for value in state.values())
    if num_values > MOST_PARAMETERS:
        raise ConfigError("model", [f"expected at most {MOST_PARAMETERS:,} parameters, found {num_values:,}"])
    return {name: _like(tuple(value.shape), np.dtype(np.float32)) for name, value in state.items()}


def _like(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    return np.broadcast_to(np.zeros((), dtype), shape)


def starting_weights(study: StudyConfig, start_from: Path | None = None) -> Weights:
    """What a study starts from: a network's first weights, or the state of a feature model before any case.

    Args:
        study: what is trained.
        start_from: see `msfl_common.deep_models.start`.

    Raises:
        InputError: the study's model cannot start from that.
    """
    settings = study.classification
    if start_from is not None and (settings is None or not isinstance(settings.model, DeepModel)):
        raise InputError(f"{start_from}: only pretrained-resnet2d and lesion-encoder start from a file; leave it out")
    if settings is None:
        return get_weights(build_network(study))
    if isinstance(settings.model, DeepModel):
        from msfl_common.deep_models.start import build_started  # which builds on this module

        return get_weights(build_started(study, start_from))
    return first_state(settings, derive_seed(study.seed, "weights"))


if __name__ == "__main__":
    from msfl_common.deep_models.start import origin

    study, start_from = parse_study(sys.stdin.read()), Path(sys.argv[1]) if sys.argv[1:] else None
    try:
        if (sentence := origin(study, start_from)) is not None:
            sys.stderr.write(f"{sentence}\n")
        first = starting_weights(study, start_from)
    except InputError as error:
        sys.exit(str(error))
    sys.stdout.buffer.write(to_safetensors(first, {ORDER: json.dumps(list(first))}))
