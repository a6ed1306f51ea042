"""What a site's context needs of the model that it trains, whatever the model is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from msfl_common.messages.records import RoundTask, ValidationMetrics
from msfl_common.models.weights import Weights

OnProgress = Callable[[str, str, int, int, str], None]  # site, what it does, done, of how many, note
OnStep = Callable[[int, int, float], None]  # step, of how many, mean loss so far; it may raise to stop
OnCase = Callable[[int, int], None]  # cases done, of how many


@dataclass(frozen=True)
class About:
    """The cases that an answer is about: what a budget of answers is kept of (`disclosure.budget`).

    Attributes:
        kind: sums of a model, of one of harmonized features, or of a harmonization; or metrics. `overlaps` says which
            can be taken off each other.
        keys: of the cases, as `Case.key`.
        patients: whose each is.
        classes: of each, as far as sums are of each class; 0 otherwise.
        inputs: names of what sums are of.
        values: of each case, a digest of each input as it is in the site's own tables, before any harmonization.
    """

    kind: Literal["sums", "harmonized", "harmonization", "metrics"]
    keys: tuple[str, ...]
    patients: tuple[str, ...]
    classes: tuple[int, ...]
    inputs: tuple[str, ...] = ()
    values: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Identities:
    """What tells who a site's patients are, whatever they are called: sets of cases with digests (`About.values`).

    Attributes:
        training: of those who train, each patient in one of them at least.
        present: of all that the site has.
    """

    training: tuple[About, ...]
    present: tuple[About, ...] = ()


@dataclass(frozen=True)
class Foreseen:
    """The metrics that a site does not tell of some patients.

    Attributes:
        withheld: whatever the model answers: too few patients are behind them.
        depends: with some answers, as where too few patients are given a class, or none is.
        min_patients: the smallest number of patients behind any answer.
        why: the counts that this comes of, for the site's own eyes.
    """

    withheld: tuple[str, ...]
    depends: tuple[str, ...]
    min_patients: int
    why: str


def identities_of(patients: Iterable[str], training: Sequence[About] = (), present: Sequence[About] = ()) -> Identities:
    """The identities of patients who train; who is in none of the sets is known by his name alone."""
    names = tuple(sorted(set(patients).difference(*(one.patients for one in training))))
    by_name = About("sums", names, names, (0,) * len(names))
    return Identities((*training, by_name), tuple(present))


def value_digests(values_NP: NDArray[np.float64]) -> tuple[tuple[str, ...], ...]:
    """`About.values` of these values."""
    return tuple(
        tuple(hashlib.sha256(np.float64(value).tobytes()).hexdigest()[:12] for value in row_P) for row_P in values_NP
    )


def foreseen(told: Iterable[ValidationMetrics], names: Iterable[str], why: str) -> Foreseen:
    """What sets of metrics, each of other answers about the same patients, have in common."""
    sets = list(told)
    counts = {name: sum(name in one.estimates for one in sets) for name in names}
    return Foreseen(
        withheld=tuple(name for name, count in counts.items() if not count),
        depends=tuple(name for name, count in counts.items() if 0 < count < len(sets)),
        min_patients=max(one.min_patients for one in sets),
        why=why,
    )


class Learner(Protocol):
    """A site's cases, and a model that learns from them."""

    @property
    def num_train_cases(self) -> int:
        """Cases that it learns from, as told: without those that the sums of a later stage leave out."""

    @property
    def train_patients(self) -> tuple[str, ...]:
        """Whose each of them is, as names that never leave."""

    @property
    def num_train_patients(self) -> int:
        """Patients that those are of."""

    @property
    def identities(self) -> Identities:
        """What tells who they are, for the account of what is spent on each with noise."""

    def learned_patients(self, among: frozenset[str]) -> frozenset[str]:
        """Those of some training patients that it would learn from if there were no others."""

    @property
    def digest(self) -> str:
        """Of all cases that it learns from or measures."""

    def about(self, split: Literal["training", "to-harmonize", "validation", "test", "all"]) -> About | None:
        """The cases of a split, where answers about them count against a budget; None where they do not.

        Those to harmonize are the training cases as far as they are known before a reference is there; so are all, of
        each split.
        """

    def num_behind(self, number: int) -> int:
        """The smallest number of patients behind any figure that is learned in round `number`."""

    @property
    def cases_in_sums(self) -> tuple[int, ...]:
        """Training cases of each class in the sums of a model of features; none of any other model."""

    def check_round(self, number: int) -> None:
        """Refuse round `number` where patients are too few for it, whatever the weights.

        Raises:
            RefusedError: says how many there are, at the site alone.
        """

    @property
    def expected(self) -> Weights:
        """What the shared weights must look like."""

    @property
    def request_like(self) -> Weights:
        """What a request to train brings: the shared weights, and what the study's strategy sends beside them."""

    def answer_like(self, weights: Weights) -> Weights:
        """What the answer to these weights looks like."""

    def train(self, weights: Weights, number: int, on_step: OnStep, micro_batches: int) -> tuple[Weights, float]:
        """Learn for round `number`: the answer, and the mean loss; a batch goes in so many parts.

        What came, and what is answered, are as `request_like` and `answer_like`.
        """

    def forget(self) -> None:
        """Let go of what a round that ran out of memory has left."""

    def num_patients(self, task: RoundTask) -> int:
        """Patients that `measure` would measure."""

    def foresee(self, task: RoundTask) -> Foreseen:
        """What `measure` tells whatever the weights, found by measuring answers that no model gave.

        Raises:
            RefusedError: nothing could be told of these patients.
        """

    def measure(self, weights: Weights, task: RoundTask, on_case: OnCase) -> ValidationMetrics:
        """Aggregates over cases that the model has not learned from; `weights` are as `expected`."""
