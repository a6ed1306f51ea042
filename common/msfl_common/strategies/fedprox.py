"""FedProx (Li et al. 2020, "Federated Optimization in Heterogeneous Networks", arXiv 1812.06127)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from msfl_common.strategies.base import Local, Strategy, squared_distance

if TYPE_CHECKING:
    import torch


class FedProx(Strategy):
    """The mean of the sites' weights; in training, going away from the shared ones costs something.

    With w_t the weights that came, a site takes its steps on F_i(w) + mu / 2 |w - w_t|^2 (the paper's equation 2).
    The paper takes any local solver; here it is the study's optimiser, which scales this gradient as any other.
    """

    sums_suffice: ClassVar[bool] = True

    kind: Literal["fedprox"] = Field("fedprox", description="the mean, of sites that stay near the shared weights")
    mu: float = Field(0.01, gt=0, le=100, description="weight of half the squared distance in the loss")

    def loss_term(self, local: Local) -> torch.Tensor:
        """Half the squared distance from the weights that came, times mu."""
        return 0.5 * self.mu * squared_distance(local)
