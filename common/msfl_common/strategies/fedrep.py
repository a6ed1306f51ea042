"""FedRep (Collins et al. 2021, "Exploiting Shared Representations for Personalized Federated Learning", 2102.07078)."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from msfl_common.strategies.base import Arrays, Local, Strategy


class FedRep(Strategy):
    """The mean of the sites' bodies; each site has a head of its own.

    In a round, a site first trains its head h_i with the body as it came, then the body with that head, and answers
    the body (the paper's algorithm 1). The head is the last layer: the convolution or the linear layer that gives the
    logits. A layer that is not trained in a step is left alone: no decay, no moments. The paper takes SGD and 10 steps
    or epochs of the head before 1 or more of the body; here a share of the round's steps, by the study's optimiser.
    """

    sums_suffice: ClassVar[bool] = True
    fewest_steps: ClassVar[int] = 2

    kind: Literal["fedrep"] = Field("fedrep", description="the mean; the last layer stays at each site")
    head_share: float = Field(
        0.5, gt=0, lt=1, description="share of a round's steps that train the last layer alone, before all others"
    )

    def staying(self, weights: Arrays) -> frozenset[str]:
        """The layer of the last array that is no vector."""
        last = [name for name, value in weights.items() if value.ndim > 1][-1:]
        head = last[0].rpartition(".")[0] if last else None
        return frozenset(name for name in weights if name.rpartition(".")[0] == head)

    def adjust_gradients(self, local: Local) -> None:
        """Leave alone what is not trained in this step; what came is the body."""
        trains_head = local.step <= head_steps(self.head_share, local.num_steps)
        for name, parameter in local.parameters.items():
            if (name in local.before) == trains_head:
                parameter.grad = None


def head_steps(share: float, num_steps: int) -> int:
    """Steps of the head in a round, at least one, with at least one of the body after them."""
    return min(max(round(share * num_steps), 1), num_steps - 1)
