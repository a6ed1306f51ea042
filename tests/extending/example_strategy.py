"""FedProx (Li et al. 2020, "Federated Optimization in Heterogeneous Networks")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from msfl_common.strategies.base import Local, Strategy

if TYPE_CHECKING:
    import torch


class FedProx(Strategy):
    """The mean of the sites' weights; in training, going away from the shared ones costs something."""

    kind: Literal["fedprox"] = Field("fedprox", description="the mean, of sites that stay near the shared weights")
    mu: float = Field(0.01, gt=0, le=100, description="weight of half the squared distance in the loss")

    def loss_term(self, local: Local) -> torch.Tensor:
        """mu / 2 times the squared distance from the weights that came."""
        moved = [(local.parameters[name] - came).square().sum() for name, came in local.before.items()]
        return 0.5 * self.mu * sum(moved[1:], start=moved[0])
