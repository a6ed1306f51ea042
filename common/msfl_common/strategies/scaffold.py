"""SCAFFOLD (Karimireddy et al. 2020, "Stochastic Controlled Averaging for Federated Learning", arXiv 1910.06378)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

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
)
from msfl_common.strategies.participation import counted_sets, joined_sets, joining, part_of_all

CONTROL, CHANGE = "control", "control_change"
MOST = 1e4


class Scaffold(Strategy):
    """The mean of the sites' weights, and a control variate at each site and at the coordinator.

    A step goes along g + c - c_i. After K steps of rates eta_k from x to y, by option II of the paper's algorithm 1,
    c_i becomes c_i - c + (x - y) / (K eta). By plain gradient descent, that is the mean of the round's gradients g,
    weighted by the rates. It is computed as that mean, so that it stays one under other optimisers as well: the way of
    Adam is no sum of gradients, and a control variate made of it would be of another unit than g. Under those the
    paper's bounds are not proven.

    The coordinator goes all the way to the mean (global step size 1), and c by the changes of c_i, times the part of
    all cases whose sites answered (the paper's |S| / N). Means are by cases, where the paper's sites count the same.
    """

    sends: ClassVar[tuple[str, ...]] = (CONTROL,)
    gathers: ClassVar[bool] = True
    sums_suffice: ClassVar[bool] = True

    kind: Literal["scaffold"] = Field(
        "scaffold", description="the mean, of sites whose gradients are corrected for what sets them apart"
    )

    def server_sets(self, weights: Arrays) -> Mapping[str, SetLike]:
        """The mean of the sites' control variates."""
        return {CONTROL: SetLike(weights, MOST), **counted_sets()}

    def answered_sets(self, weights: Arrays) -> Mapping[str, SetLike]:
        """How far a site's control variate has changed."""
        return {CHANGE: SetLike(weights, MOST), **joined_sets()}

    def kept_sets(self, weights: Arrays) -> Mapping[str, SetLike]:
        """A site's own control variate."""
        return {CONTROL: SetLike(weights, MOST), **joined_sets()}

    def adjust_gradients(self, local: Local) -> None:
        """Make it g + c - c_i; the g are added up, each times its rate."""
        for name, parameter in local.parameters.items():
            if parameter.grad is not None:
                local.gathered[name].add_(parameter.grad, alpha=local.rate)
                parameter.grad += local.sent[CONTROL][name] - local.kept[CONTROL][name]

    def finish(self, trained: Trained) -> Finished:
        """c_i becomes the mean of the gradients; running statistics have none."""
        before, way = trained.kept[CONTROL], np.float32(sum(trained.rates))
        after = {name: trained.gathered[name] / way if name in trained.gathered else of for name, of in before.items()}
        change = {name: value - before[name] for name, value in after.items()}
        said, kept = joining(trained.kept)
        return Finished({CHANGE: change, **said}, {CONTROL: after, **kept})

    def combine(self, answers: Answers) -> Combination:
        """The mean of the weights, and c with the mean of the changes added."""
        part, counted = part_of_all(answers)
        control, changes = answers.state[CONTROL], mean(answers, answers.before, of=CHANGE)
        after = {name: value + part * changes[name] for name, value in control.items()}
        return Combination(mean(answers, answers.before), {CONTROL: after, **counted})
