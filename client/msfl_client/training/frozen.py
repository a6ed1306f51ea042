"""Layers that a round leaves as they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from msfl_common.config.frozen_layers import frozen_names
from msfl_common.config.study import StudyConfig


@contextmanager
def frozen_layers(network: torch.nn.Module, study: StudyConfig, number: int) -> Iterator[None]:
    """While round `number` is trained: frozen layers have no gradients, and normalise by the statistics they have.

    Args:
        network: in training; not yet in a DistributedDataParallel, which looks at gradients when it is made.
        study: says which.
        number: from 1.
    """
    names = frozen_names(study, number, network.state_dict())
    held = [value for name, value in network.named_parameters() if name in names and value.requires_grad]
    counting = [
        module
        for name, module in network.named_modules()
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and f"{name}.running_mean" in names
    ]
    for parameter in held:
        parameter.requires_grad_(False)
    for module in counting:
        module.eval()
    try:
        yield
    finally:
        for parameter in held:
            parameter.requires_grad_(True)
        for module in counting:
            module.train()
