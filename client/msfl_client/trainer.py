"""What a site's context needs of the model that it trains, whatever the model is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from msfl_common.messages.records import RoundTask, ValidationMetrics
from msfl_common.models.weights import Weights

OnProgress = Callable[[str, str, int, int, str], None]  # site, what it does, done, of how many, note
OnStep = Callable[[int, int, float], None]  # step, of how many, mean loss so far; it may raise to stop
OnCase = Callable[[int, int], None]  # cases done, of how many


class Learner(Protocol):
    """A site's cases, and a model that learns from them."""

    @property
    def num_train_cases(self) -> int:
        """Cases that the model learns from."""

    @property
    def num_train_patients(self) -> int:
        """Patients that those are of."""

    @property
    def digest(self) -> str:
        """Of all cases that it learns from or measures."""

    def num_behind(self, number: int) -> int:
        """The smallest number of patients behind any figure that is learned in round `number`."""

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

    def measure(self, weights: Weights, task: RoundTask, on_case: OnCase) -> ValidationMetrics:
        """Aggregates over cases that the model has not learned from; `weights` are as `expected`."""
