"""FedDyn (Acar et al. 2021, "Federated Learning Based on Dynamic Regularization", arXiv 2111.04263)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from msfl_common.strategies.base import (
    Answers,
    Arrays,
    Combination,
    Finished,
    Local,
    SetLike,
    Strategy,
    Trained,
    mean,
    squared_distance,
)
from msfl_common.strategies.participation import counted_sets, joined_sets, joining, part_of_all

if TYPE_CHECKING:
    import torch

GRADIENT, DRIFT = "gradient", "drift"
MOST = 1e4


class FedDyn(Strategy):
    """Sites whose own optimum is moved, round by round, to where all sites' is.

    With w the weights that came, a site takes its steps on F_i(v) - <g_i, v> + alpha / 2 |v - w|^2, and then
    g_i becomes g_i - alpha (v - w). The coordinator's h becomes h - alpha p (mean v - w), with p the part of all
    cases whose sites answered, and the next weights are mean v - h / alpha (the paper's algorithm 1; g_i and h are 0
    at first). Means are by cases, where the paper's sites count the same.

    The paper assumes that sites come to the minimum of their objective, where g_i is its gradient; any optimiser can
    do so. A round of few steps does not, and then the way of all earlier rounds, which h / alpha is, goes far: more
    steps, or a larger alpha, hold it back.
    """

    extrapolates: ClassVar[bool] = True
    sums_suffice: ClassVar[bool] = True

    kind: Literal["feddyn"] = Field("feddyn", description="the mean, of sites whose objectives are brought to agree")
    alpha: float = Field(0.01, gt=0, le=100, description="weight of half the squared distance in the loss")

    def server_sets(self, weights: Arrays) -> Mapping[str, SetLike]:
        """What the paper calls h."""
        return {DRIFT: SetLike(weights, MOST), **counted_sets()}

    def answered_sets(self, weights: Arrays) -> Mapping[str, SetLike]:  # noqa: ARG002
        """Whether the site is new."""
        return joined_sets()

    def kept_sets(self, weights: Arrays) -> Mapping[str, SetLike]:
        """g_i, a site's own."""
        return {GRADIENT: SetLike(weights, MOST), **joined_sets()}

    def loss_term(self, local: Local) -> torch.Tensor:
        """What is added: alpha / 2 |v - w|^2 - <g_i, v>."""
        own = local.kept[GRADIENT]
        first, *others = ((own[name] * local.parameters[name]).sum() for name in local.before)
        return 0.5 * self.alpha * squared_distance(local) - sum(others, start=first)

    def finish(self, trained: Trained) -> Finished:
        """The site's g_i goes on."""
        alpha, before = np.float32(self.alpha), trained.before
        own = {name: of - alpha * (trained.after[name] - before[name]) for name, of in trained.kept[GRADIENT].items()}
        said, kept = joining(trained.kept)
        return Finished(said, {GRADIENT: own, **kept})

    def combine(self, answers: Answers) -> Combination:
        """The mean less h / alpha."""
        part, counted = part_of_all(answers)
        average, alpha, drift = mean(answers, answers.before), np.float32(self.alpha), answers.state[DRIFT]
        after = {name: h - alpha * part * (average[name] - answers.before[name]) for name, h in drift.items()}
        weights = {name: value - after[name] / alpha for name, value in average.items()}
        return Combination(weights, {DRIFT: after, **counted})
