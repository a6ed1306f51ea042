"""A strategy with every rule that acts in a step: for processes that are given it by a hook."""

from __future__ import annotations

from typing import ClassVar, Literal

from msfl_common.strategies import STRATEGIES
from msfl_common.strategies.fedprox import FedProx
from msfl_common.strategies.scaffold import Scaffold


class TwoRules(Scaffold):
    """A loss term, sets that came and are kept, and a gradient hook."""

    kind: Literal["two-rules"] = "two-rules"
    mu: ClassVar[float] = 0.5
    loss_term = FedProx.loss_term


STRATEGIES["two-rules"] = TwoRules
