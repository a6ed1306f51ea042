"""What a network must be to be shared: weights and nothing else, and maps of logits at its end."""

from __future__ import annotations

import torch
from torch import nn

_Convolution = nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d
_DRAWS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
_OF_BATCHES = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def check_made(network: nn.Module, kind: str, num_regions: int = 1) -> None:
    """Hold a network to what is sent of it.

    Raises:
        TypeError: it has state beside its weights, a weight of two names or not of float32, normalises by batch, draws
            at random while it trains, or has no logits.
    """
    weights = {name for name, _ in network.named_parameters()}
    if more := sorted(set(network.state_dict()) - weights):
        raise TypeError(
            f"{kind}: {more[0]} is no weight, or one that has another name, too; it would be averaged like a weight: "
            "register it with persistent=False, or take the second name away"
        )
    if any(isinstance(module, _OF_BATCHES) for module in network.modules()):
        raise TypeError(f"{kind}: normalises by batch, and batches differ from site to site; take instance or group")
    for name, weight in network.named_parameters():
        if nn.parameter.is_lazy(weight) or weight.dtype != torch.float32:
            found = "none before it has seen an image" if nn.parameter.is_lazy(weight) else str(weight.dtype)
            raise TypeError(f"{kind}: {name}: expected float32, of a shape that the settings give; found {found}")
    if any(isinstance(module, _DRAWS) and module.p > 0 for module in network.modules()):
        raise TypeError(f"{kind}: drops maps at random, and a resumed round must give the same bits; take dropout away")
    if not any(isinstance(module, _Convolution) for module in network.modules()):
        raise TypeError(f"{kind}: has no convolution; expected one at its end, with a bias: the logits")
    last = last_convolution(network)
    if last.out_channels != num_regions or last.bias is None:
        maps = "one map" if num_regions == 1 else f"{num_regions} maps"
        raise TypeError(f"{kind}: expected {maps} with a bias of the last convolution, found {last}")


def last_convolution(network: nn.Module) -> _Convolution:
    """The last convolution that a network has registered: the one that gives its logits."""
    return [module for module in network.modules() if isinstance(module, _Convolution)][-1]
