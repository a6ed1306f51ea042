"""How a study's next weights come of the sites' updates: averages for networks, sums and trees for feature models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from msfl_common.config import StudyConfig
from msfl_common.config_classification import Classification, DeepModel
from msfl_common.feature_models import contribution_like, is_finished
from msfl_common.weights import Weights
from msfl_server.feature_aggregation import combine
from msfl_server.strategy_fedavg import aggregate, mean_loss, with_momentum
from msfl_server.update_store import StoredUpdate


@dataclass(frozen=True)
class Combined:
    """What a round came to: new weights, the momentum to keep, if any, and the training loss."""

    weights: Weights
    momentum: Weights | None
    loss: float


class Strategy(Protocol):
    """One way to combine updates."""

    @property
    def name(self) -> str:
        """As in `summary.json`."""

    def answer_like(self, weights: Weights) -> Weights:
        """What a site's answer to these weights must look like."""

    def combine(self, weights: Weights, momentum: Weights | None, updates: Mapping[str, StoredUpdate]) -> Combined:
        """The next weights; it does not matter who answered first."""

    def is_finished(self, weights: Weights) -> bool:
        """Whether no further round would change them."""


@dataclass(frozen=True)
class Averaging:
    """Federated averaging, with server momentum where the study has one."""

    server_momentum: float

    @property
    def name(self) -> str:
        """See `Strategy`."""
        return "fedavgm" if self.server_momentum else "fedavg"

    def answer_like(self, weights: Weights) -> Weights:
        """See `Strategy`."""
        return weights

    def combine(self, weights: Weights, momentum: Weights | None, updates: Mapping[str, StoredUpdate]) -> Combined:
        """See `Strategy`."""
        average = aggregate(updates, weights)
        return Combined(*with_momentum(weights, average, momentum, self.server_momentum), mean_loss(updates))

    def is_finished(self, _: Weights) -> bool:
        """See `Strategy`."""
        return False


@dataclass(frozen=True)
class FeatureSums:
    """A model of features, from the sites' contributions to its state; see `msfl_common.feature_models`."""

    settings: Classification

    @property
    def name(self) -> str:
        """See `Strategy`."""
        return f"{self.settings.model.kind} by contributions"

    def answer_like(self, weights: Weights) -> Weights:
        """See `Strategy`."""
        return contribution_like(self.settings, weights)

    def combine(self, weights: Weights, momentum: Weights | None, updates: Mapping[str, StoredUpdate]) -> Combined:
        """See `Strategy`."""
        like = self.answer_like(weights)
        contributions = {site: (update.load(like), update.num_cases) for site, update in updates.items()}
        return Combined(combine(self.settings, weights, contributions), momentum, mean_loss(updates))

    def is_finished(self, weights: Weights) -> bool:
        """See `Strategy`."""
        return is_finished(self.settings, weights)


def strategy_of(study: StudyConfig) -> Strategy:
    """The study's strategy."""
    settings = study.classification
    if settings is None or isinstance(settings.model, DeepModel):
        return Averaging(study.rounds.server_momentum)
    return FeatureSums(settings)
