"""Adaptive server steps: the mean way of the sites is the gradient of an optimiser at the coordinator.

Reddi et al. 2021, "Adaptive Federated Optimization" (ICLR), algorithm 2: no correction of bias, and v starts at tau^2.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from msfl_common.strategies.base import Answers, Arrays, Combination, SetLike, Strategy, mean

FIRST, SECOND = "first_moment", "second_moment"
Floats = NDArray[Any]


class Adaptive(Strategy):
    """The weights w become w + learning_rate m / (sqrt(v) + tau).

    With d the mean way of the round, m becomes beta1 m + (1 - beta1) d, and v what its kind says. v is kept as what it
    has above tau^2, so that the zeros before the first round are the paper's start.
    """

    extrapolates: ClassVar[bool] = True
    sums_suffice: ClassVar[bool] = True

    learning_rate: float = Field(
        0.01, gt=0, le=10, description="the coordinator's; about how far a weight moves in a round at most"
    )
    beta1: float = Field(0.9, ge=0, lt=1, description="share of the first moment that is carried from round to round")
    tau: float = Field(
        1e-3, gt=0, le=1, description="adaptivity: weights whose way in a round is much shorter hardly move"
    )

    def server_sets(self, weights: Arrays) -> Mapping[str, SetLike]:
        """See `Strategy`."""
        return {name: SetLike(weights, most=float("inf")) for name in (FIRST, SECOND)}

    def combine(self, answers: Answers) -> Combination:
        """See the class."""
        average = mean(answers, answers.before)
        weights, first, second = {}, {}, {}
        for name, w in answers.before.items():
            number = w.dtype.type
            square = number(self.tau * self.tau)
            d = average[name] - w
            m = number(self.beta1) * answers.state[FIRST][name] + number(1 - self.beta1) * d
            v = self.second(answers.state[SECOND][name] + square, np.square(d))
            weights[name] = w + number(self.learning_rate) * m / (np.sqrt(v) + number(self.tau))
            first[name], second[name] = m, v - square
        return Combination(weights, {FIRST: first, SECOND: second})

    @abstractmethod
    def second(self, v: Floats, squared: Floats) -> Floats:
        """The next v, of the squared way of the round."""
