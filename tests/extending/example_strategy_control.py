"""SCAFFOLD in small (Karimireddy et al. 2020, option II of control variates)."""

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

CONTROL, CHANGE = "control", "control_change"
MOST = 1e4


class Scaffold(Strategy):
    """The mean of the sites' weights, and a control variate at each site and at the coordinator."""

    sends: ClassVar[tuple[str, ...]] = (CONTROL,)

    kind: Literal["scaffold"] = Field("scaffold", description="the mean, of sites whose gradients are set right")

    def server_sets(self, weights: Arrays) -> Mapping[str, SetLike]:
        """The mean of the sites' control variates."""
        return {CONTROL: SetLike(weights, MOST)}

    def answered_sets(self, weights: Arrays) -> Mapping[str, SetLike]:
        """How far a site's control variate has changed."""
        return {CHANGE: SetLike(weights, MOST)}

    def kept_sets(self, weights: Arrays) -> Mapping[str, SetLike]:
        """A site's own control variate."""
        return {CONTROL: SetLike(weights, MOST)}

    def adjust_gradients(self, local: Local) -> None:
        """g + c - c_i."""
        for name, parameter in local.parameters.items():
            if parameter.grad is not None:
                parameter.grad += local.sent[CONTROL][name] - local.kept[CONTROL][name]

    def finish(self, trained: Trained) -> Finished:
        """c_i becomes c_i - c + (x - y) / (K eta), with the sum of all steps' rates for K eta."""
        before, shared, way = trained.kept[CONTROL], trained.sent[CONTROL], np.float32(sum(trained.rates))
        after = {n: before[n] - shared[n] + (x - trained.after[n]) / way for n, x in trained.before.items()}
        return Finished({CHANGE: {n: after[n] - before[n] for n in after}}, {CONTROL: after})

    def combine(self, answers: Answers) -> Combination:
        """The mean of the weights, and c with the mean of the changes added."""
        control, changes = answers.state[CONTROL], mean(answers, answers.before, of=CHANGE)
        return Combination(mean(answers, answers.before), {CONTROL: {n: c + changes[n] for n, c in control.items()}})
