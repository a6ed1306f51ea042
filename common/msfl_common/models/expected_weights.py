"""The names, shapes and types of a study's weights, known without making them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from msfl_common.config.classification import DeepModel
from msfl_common.config.study import StudyConfig
from msfl_common.errors import ConfigError
from msfl_common.models.deep_models import build_classifier
from msfl_common.models.feature_models import first_state
from msfl_common.models.network import build_network
from msfl_common.models.weights import Weights

MOST_PARAMETERS = 100_000_000  # of any network: three times what the largest of the papers has


def weights_like(study: StudyConfig) -> Weights:
    """Names, shapes and types of a study's weights, as arrays that take no memory: all of their values are one 0.

    Raises:
        ConfigError: there are more than any study may have.
    """
    settings = study.classification
    if settings is not None and not isinstance(settings.model, DeepModel):
        return {name: _like(value.shape, value.dtype) for name, value in first_state(settings, 0).items()}
    with torch.device("meta"):
        state = (build_network(study) if settings is None else build_classifier(study)).state_dict()
    num_values = sum(value.numel() for value in state.values())
    if num_values > MOST_PARAMETERS:
        raise ConfigError("model", [f"expected at most {MOST_PARAMETERS:,} parameters, found {num_values:,}"])
    return {name: _like(tuple(value.shape), np.dtype(np.float32)) for name, value in state.items()}


def _like(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    return np.broadcast_to(np.zeros((), dtype), shape)
