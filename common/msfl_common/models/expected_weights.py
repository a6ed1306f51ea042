"""The names, shapes and types of a study's weights, known without making them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.overrides import TorchFunctionMode

from msfl_common.config.classification import DeepModel
from msfl_common.config.study import StudyConfig
from msfl_common.errors import ConfigError
from msfl_common.feature_models import first_state
from msfl_common.models.deep_models import build_classifier
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
    with torch.device("meta"), _OnlyShapes():
        state = (build_network(study) if settings is None else build_classifier(study)).state_dict()
    num_values = sum(value.numel() for value in state.values())
    if num_values > MOST_PARAMETERS:
        raise ConfigError(
            "network" if settings is None else "classification.model",
            [f"expected at most {MOST_PARAMETERS:,} parameters, found {num_values:,}"],
        )
    return {name: _like(tuple(value.shape), np.dtype(np.float32)) for name, value in state.items()}


# What PyTorch loads SymPy for where there is no memory, for seconds: first values of weights, which are not needed, and
# numbers in a row, which networks read rates and places off.
_FIRST_VALUES = {torch.Tensor.normal_, torch.Tensor.erfinv_, torch.Tensor.clamp_}
_ROWS = {torch.arange, torch.linspace}


class _OnlyShapes(TorchFunctionMode):
    """While a network is built without memory: no first values are drawn, and numbers in a row have their values."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call `func`, or what takes its place."""
        if func in _FIRST_VALUES:
            return args[0]
        return func(*args, **(kwargs or {}) | ({"device": "cpu"} if func in _ROWS else {}))


def _like(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    return np.broadcast_to(np.zeros((), dtype), shape)
