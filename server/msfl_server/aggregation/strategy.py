"""How a study's next weights come of the sites' updates: averages for networks, sums and trees for feature models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from msfl_common.config.classification import DeepModel
from msfl_common.config.study import StudyConfig
from msfl_common.messages.records import ModelUpdate
from msfl_common.models.weights import Weights, expect_finite
from msfl_server.aggregation.combined import Combined
from msfl_server.aggregation.feature_sums import FeatureSums
from msfl_server.aggregation.fedavg import aggregate, mean_loss, with_momentum
from msfl_server.aggregation.update_checks import moved, too_far
from msfl_server.aggregation.update_store import Moved, StoredUpdate


class Strategy(Protocol):
    """One way to combine updates."""

    @property
    def name(self) -> str:
        """As in `summary.json`."""

    def answer_like(self, weights: Weights) -> Weights:
        """What a site's answer to these weights must look like."""

    @property
    def can_go_back(self) -> bool:
        """Whether a model that came apart is set back to earlier weights; a search finds its own way back."""

    def check(self, weights: Weights, update: ModelUpdate) -> Moved:
        """How far an update goes; of trees, the largest figure in a leaf.

        Raises:
            UpdateError: no cases give such an update.
        """

    def odd(self, weights: Weights, updates: Mapping[str, StoredUpdate]) -> dict[str, str]:
        """The sites whose update stands out among the others so much that it must not count, and why."""

    def combine(self, weights: Weights, momentum: Weights | None, updates: Mapping[str, StoredUpdate]) -> Combined:
        """The next weights; it does not matter who answered first.

        Raises:
            MsflError: they cannot be combined.
        """

    def is_moderate(self, weights: Weights) -> bool:
        """Whether combined weights are such that sites will answer them."""

    def is_finished(self, weights: Weights) -> bool:
        """Whether no further round would change them."""


@dataclass(frozen=True)
class Averaging:
    """Federated averaging, with server momentum where the study has one."""

    server_momentum: float
    max_share: float = 1.0

    can_go_back = True

    @property
    def name(self) -> str:
        """See `Strategy`."""
        return "fedavgm" if self.server_momentum else "fedavg"

    def answer_like(self, weights: Weights) -> Weights:
        """See `Strategy`."""
        return weights

    def combine(self, weights: Weights, momentum: Weights | None, updates: Mapping[str, StoredUpdate]) -> Combined:
        """See `Strategy`."""
        average = aggregate(updates, weights, self.max_share)
        after, velocity = with_momentum(weights, average, momentum, self.server_momentum)
        expect_finite(after)
        return Combined(after, velocity, mean_loss(updates, self.max_share))

    def check(self, weights: Weights, update: ModelUpdate) -> Moved:
        """See `Strategy`."""
        return moved(update.weights, weights)

    def odd(self, weights: Weights, updates: Mapping[str, StoredUpdate]) -> dict[str, str]:
        """See `Strategy`."""
        return too_far({site: update.moved for site, update in updates.items()}, weights)

    def is_moderate(self, _: Weights) -> bool:
        """See `Strategy`."""
        return True

    def is_finished(self, _: Weights) -> bool:
        """See `Strategy`."""
        return False


def strategy_of(study: StudyConfig) -> Strategy:
    """The study's strategy."""
    settings = study.classification
    if settings is None or isinstance(settings.model, DeepModel):
        return Averaging(study.rounds.server_momentum, study.rounds.max_share)
    return FeatureSums(settings, study.rounds.max_share)
