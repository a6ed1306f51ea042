"""q-FedAvg (Li et al. 2020, "Fair Resource Allocation in Federated Learning", ICLR, algorithm 2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from msfl_common.strategies.base import (
    LOSS,
    STATISTICS,
    Answers,
    Arrays,
    Combination,
    Finished,
    SetLike,
    SiteUpdate,
    Strategy,
    Trained,
)
from msfl_common.strategies.robust import mean_of

FIRST_LOSS, _VALUE = "first_loss", "mean"
_LEAST = 1e-10  # a loss of 0 has no negative powers


class QFedAvg(Strategy):
    """Sites with a larger loss count for more, so that the model becomes more alike at all of them.

    With F_k a site's mean loss at the weights w that it was sent, over the batches of the round, and w_k what it
    answers: d_k = L (w - w_k), and h_k = q F_k^(q-1) |d_k|^2 + L F_k^q. Then w becomes w - sum F_k^q d_k / sum h_k. The
    paper draws sites by their share of cases; here all answer, and both sums are weighted by the shares.
    """

    asks_loss: ClassVar[bool] = True

    kind: Literal["qfedavg"] = Field(
        "qfedavg", description="the mean, in which sites with a larger loss count for more"
    )
    q: float = Field(0.1, gt=0, le=10, description="how much more; near 0 it is fedavg")
    lipschitz: float = Field(
        1.0,
        gt=0,
        le=1e6,
        description="L, about how fast gradients change; the larger, the shorter the steps. The paper has 1 / learning "
        "rate, for plain gradient descent; the sites' optimisers go further, and that would stop the model",
    )

    def answered_sets(self, weights: Arrays) -> Mapping[str, SetLike]:  # noqa: ARG002
        """F_k."""
        return {FIRST_LOSS: SetLike({_VALUE: np.zeros(1, np.float32)}, most=1e6)}

    def finish(self, trained: Trained) -> Finished:
        """Tell the loss of the weights that came."""
        return Finished({FIRST_LOSS: {_VALUE: trained.gathered[LOSS].reshape(1).astype(np.float32)}})

    def combine(self, answers: Answers) -> Combination:
        """See the class; w is the mean of the weights before and the sites', by parts that add up to 1."""
        parts, total = {}, 0.0
        for site, share in answers.shares.items():
            update = answers.updates[site]
            loss = max(float(update.array(_VALUE, FIRST_LOSS)[0]), _LEAST)
            squared = self.lipschitz**2 * _squared_way(answers.before, update)
            parts[site] = share * loss**self.q * self.lipschitz
            total += share * (self.q * loss ** (self.q - 1) * squared + self.lipschitz * loss**self.q)
        parts = {site: part / total for site, part in parts.items()}
        moved, rest = mean_of(answers, parts).weights, 1 - sum(parts.values())
        return Combination(
            {name: value.dtype.type(rest) * value + moved[name] for name, value in answers.before.items()}
        )


def _squared_way(before: Arrays, update: SiteUpdate) -> float:
    """The squared length of a site's way; running statistics are not learned."""
    total = 0.0
    for name, value in before.items():
        if not name.endswith(STATISTICS):
            way = update.array(name).astype(np.float64) - value
            total += float(np.square(way).sum())
    return total
