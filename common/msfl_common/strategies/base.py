"""What a strategy of federated training is: what becomes of the sites' updates, and what changes in their training.

A strategy is settings and rules in one class: it is parsed from `strategy` in study.yaml, travels with the study, and
is asked by the coordinator, which has no deep-learning framework, and by each site. What it does not override is
federated averaging's. Arrays are float32, as a network's weights are; the layers of a perceptron are float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    import torch

    Tensors = Mapping[str, torch.Tensor]

Arrays = dict[str, NDArray[Any]]  # by name, in their order: a network's weights, or a set that goes with them
Sets = Mapping[str, Arrays]  # by the name of the set

WEIGHTS = "weights"  # no set may have the name
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")  # of batch normalisation: counted, not learned


@dataclass(frozen=True)
class SetLike:
    """What a named set of arrays must look like.

    Attributes:
        like: names, shapes and types; the values do not count.
        most: largest magnitude of a value that is taken for an honest one; larger ones are refused.
    """

    like: Arrays
    most: float = 1e6


class SiteUpdate(Protocol):
    """A site's checked update, on disk: read array by array, so that the coordinator never holds many of them."""

    @property
    def num_cases(self) -> int:
        """Cases that it is of."""

    @property
    def train_loss(self) -> float:
        """Mean loss of the site's training."""

    def array(self, name: str, of: str = WEIGHTS) -> NDArray[Any]:
        """One array of the weights, or of a set that came beside them."""


@dataclass(frozen=True)
class Answers:
    """What a round brought, for the coordinator.

    Attributes:
        before: the shared weights that were sent.
        state: the coordinator's sets, as `server_sets` declares them; zeros in the first round.
        updates: by site, in alphabetical order.
        shares: each site's share of the cases, by site; they add up to 1.
    """

    before: Arrays
    state: Sets
    updates: Mapping[str, SiteUpdate]
    shares: Mapping[str, float]


@dataclass(frozen=True)
class Combination:
    """What the coordinator made of a round: the next shared weights, and its sets."""

    weights: Arrays
    state: Sets = field(default_factory=dict)


@dataclass(frozen=True)
class Local:
    """A site's training under way, on its device.

    Attributes:
        parameters: what is trained, by name: shared layers, and those that stay.
        before: the shared ones of them, as they came.
        sent: the sets that came along.
        kept: the site's own sets.
    """

    parameters: Tensors
    before: Tensors
    sent: Mapping[str, Tensors]
    kept: Mapping[str, Tensors]


@dataclass(frozen=True)
class Trained:
    """A site's training after its last step.

    Attributes:
        before: the shared weights as they came.
        after: the same after training.
        sent: the sets that came along.
        kept: the site's own sets as they were.
        rates: the learning rate of each step.
    """

    before: Arrays
    after: Arrays
    sent: Sets
    kept: Sets
    rates: tuple[float, ...]


@dataclass(frozen=True)
class Finished:
    """What a site answers beside its weights, as `answered_sets` declares, and what it keeps, as `kept_sets` does."""

    answered: Sets = field(default_factory=dict)
    kept: Sets = field(default_factory=dict)


class Strategy(BaseModel):
    """How the sites' updates become the next weights."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kind: str = Field(description="which strategy")

    # Names of the coordinator's sets that go to the sites with the weights.
    sends: ClassVar[tuple[str, ...]] = ()
    # Whether the next weights may lie outside of what the sites' weights span: variances of a batch normalisation,
    # which are averaged like weights, could then fall below 0.
    extrapolates: ClassVar[bool] = False
    # Whether the sums over sites, weighted by cases, are all that `combine` needs of updates: it takes them as if of
    # one site. A kind without that cannot be trained under masks.
    sums_suffice: ClassVar[bool] = False

    @classmethod
    def __pydantic_init_subclass__(cls, **settings: Any) -> None:
        """A rule of its own is not what an inherited `sums_suffice` was said of."""
        super().__pydantic_init_subclass__(**settings)
        if "combine" in vars(cls) and "sums_suffice" not in vars(cls):
            cls.sums_suffice = False

    @property
    def fewest_sites(self) -> int:
        """How many updates `combine` needs at least; `rounds.quorum` may not be below it."""
        return 1

    def stays(self, name: str) -> bool:  # noqa: ARG002
        """Whether an array of the network stays at each site: it never leaves, and none ever arrives."""
        return False

    def server_sets(self, weights: Arrays) -> Mapping[str, SetLike]:  # noqa: ARG002
        """What the coordinator carries from round to round, in its checkpoints; zeros before the first round."""
        return {}

    def answered_sets(self, weights: Arrays) -> Mapping[str, SetLike]:  # noqa: ARG002
        """What a site answers beside its weights."""
        return {}

    def kept_sets(self, weights: Arrays) -> Mapping[str, SetLike]:  # noqa: ARG002
        """What a site keeps from round to round, beside the layers that stay; zeros before its first round."""
        return {}

    def combine(self, answers: Answers) -> Combination:
        """The next shared weights, and the coordinator's sets; who answered first must not matter."""
        return Combination(mean(answers, answers.before))

    def loss_term(self, local: Local) -> torch.Tensor | None:  # noqa: ARG002
        """What is added to the loss of each step of a site's training."""
        return None

    def adjust_gradients(self, local: Local) -> None:
        """Change the gradients of a step in place, before they are clipped."""

    def finish(self, trained: Trained) -> Finished:  # noqa: ARG002
        """What a site answers beside its weights, and what it keeps, after a round."""
        return Finished()

    @property
    def acts_at_sites(self) -> bool:
        """Whether it changes what sites train, answer or keep, and not alone how their updates are combined."""
        at_sites = ("stays", "loss_term", "adjust_gradients", "answered_sets", "kept_sets", "finish")
        return bool(self.sends) or any(self.overrides(one) for one in at_sites)

    @property
    def is_personal(self) -> bool:
        """Whether layers may stay at the sites, so that the shared model is none without a site's."""
        return self.overrides("stays")

    def overrides(self, method: str) -> bool:
        """Whether the kind has a rule of its own in place of federated averaging's."""
        return getattr(type(self), method) is not getattr(Strategy, method)


def mean(answers: Answers, like: Arrays, of: str = WEIGHTS) -> Arrays:
    """The mean of the sites' arrays, weighted by their shares; summed in their type, in alphabetical order of sites.

    Args:
        answers: the round's.
        like: names and shapes of the arrays.
        of: the set that they are of.
    """
    averaged: Arrays = {}
    for name, value in like.items():
        total = np.zeros(value.size, value.dtype)
        for site, part in answers.shares.items():
            total += value.dtype.type(part) * answers.updates[site].array(name, of).reshape(-1)
        averaged[name] = total.reshape(value.shape)
    return averaged
