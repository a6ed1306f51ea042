"""FedBN (Li et al. 2021, "Federated Learning on Non-IID Features via Local Batch Normalization", arXiv 2102.07623)."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from msfl_common.strategies.base import STATISTICS, Arrays, Strategy


class FedBN(Strategy):
    """The mean of the sites' weights but for normalisation layers, which each site has for itself.

    All weights but those of normalisation layers are averaged after each round; w_i of those are the site's own
    (the paper's algorithm 1). The paper's networks normalise by batch. Here it is each layer that scales and shifts
    whole maps, by batch, instance, group or layer: one whose `weight` is a vector beside a `bias` of the same
    length, with its running statistics where it has them. Networks without such layers, as ResNeXt has none, are
    refused.
    """

    sums_suffice: ClassVar[bool] = True

    kind: Literal["fedbn"] = Field("fedbn", description="the mean; normalisation layers stay at each site")

    def staying(self, weights: Arrays) -> frozenset[str]:
        """Scale, shift and statistics of normalisation layers."""
        layers = {
            name.removesuffix(".weight")
            for name, value in weights.items()
            if name.endswith(".weight") and value.ndim == 1 and _shape(weights, name) == value.shape
        }
        return frozenset(name for name in weights if name.endswith(STATISTICS) or name.rpartition(".")[0] in layers)


def _shape(weights: Arrays, weight: str) -> tuple[int, ...] | None:
    """The shape of the bias beside a weight."""
    bias = weights.get(f"{weight.removesuffix('weight')}bias")
    return None if bias is None else bias.shape
