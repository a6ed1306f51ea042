"""Federated averaging with server momentum (Hsu, Qi and Brown 2019), in Nesterov's form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from msfl_common.strategies.base import Answers, Arrays, Combination, SetLike, Strategy, mean

MOMENTUM = "momentum"


class FedAvgM(Strategy):
    """The mean of the sites' weights, which carries the ways of earlier rounds on."""

    extrapolates: ClassVar[bool] = True
    sums_suffice: ClassVar[bool] = True

    kind: Literal["fedavgm"] = Field(
        "fedavgm", description="the mean, carried on by the ways of earlier rounds (Nesterov)"
    )
    momentum: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="share of the way of a round that is carried on; 0.5 lets a study of few, short rounds come closer "
        "to centralised training; near 1 it overshoots",
    )

    def server_sets(self, weights: Arrays) -> Mapping[str, SetLike]:
        """See `Strategy`."""
        return {MOMENTUM: SetLike(weights, most=float("inf"))}

    def combine(self, answers: Answers) -> Combination:
        """With w the weights before and d the way to their mean: v = momentum v + d, then w + d + momentum v."""
        average, before = mean(answers, answers.before), answers.state[MOMENTUM]
        weights, velocity = {}, {}
        for name, w in answers.before.items():
            b = w.dtype.type(self.momentum)
            delta = average[name] - w
            v = b * before[name] + delta
            weights[name], velocity[name] = w + (delta + b * v), v
        return Combination(weights, {MOMENTUM: velocity})
