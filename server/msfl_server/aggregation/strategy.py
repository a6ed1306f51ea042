"""How a study's next weights come of the sites' updates: what a round asks of whoever combines them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from msfl_common.config.classification import BoostedTrees, Classification, DeepModel, Forest, MlpModel
from msfl_common.config.study import StudyConfig
from msfl_common.messages.records import ModelUpdate
from msfl_common.models.feature_models import Phase, check_state, contribution_like, is_finished, phase_of
from msfl_common.models.feature_models.trees import VALUES
from msfl_common.models.weights import Weights
from msfl_common.strategies.base import Sets
from msfl_common.strategies.fedavg import FedAvg
from msfl_server.aggregation.averaging import Averaging
from msfl_server.aggregation.combined import Combined, mean_loss
from msfl_server.aggregation.feature_models.checks import are_moderate, check_contribution, odd_inputs, odd_leaves
from msfl_server.aggregation.feature_models.combine import combine
from msfl_server.aggregation.update_checks import moved, too_far
from msfl_server.aggregation.update_store import Moved, StoredUpdate


class Strategy(Protocol):
    """One way to combine updates."""

    @property
    def name(self) -> str:
        """As in `summary.json`."""

    def shared(self, weights: Weights) -> Weights:
        """Those of the model's weights that the sites share."""

    def sets_like(self, weights: Weights) -> Mapping[str, Weights]:
        """By name, the sets of arrays that are carried from round to round beside the weights."""

    def request(self, weights: Weights, sets: Sets) -> Weights:
        """The arrays that a site is sent to train from."""

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

    def combine(self, weights: Weights, sets: Sets, updates: Mapping[str, StoredUpdate]) -> Combined:
        """The next weights; it does not matter who answered first. No sets are zeros, as before the first round.

        Raises:
            MsflError: they cannot be combined.
        """

    def is_moderate(self, weights: Weights) -> bool:
        """Whether combined weights are such that sites will answer them."""

    def is_finished(self, weights: Weights) -> bool:
        """Whether no further round would change them."""


@dataclass(frozen=True)
class FeatureSums:
    """A model of features, from the sites' contributions to its state; see `msfl_common.models.feature_models`."""

    settings: Classification
    max_share: float = 1.0

    @property
    def can_go_back(self) -> bool:
        """See `Strategy`."""
        return isinstance(self.settings.model, MlpModel)  # sites take no trees back, and searches find their own way

    @property
    def name(self) -> str:
        """See `Strategy`."""
        return f"{self.settings.model.kind} by contributions"

    def shared(self, weights: Weights) -> Weights:
        """See `Strategy`."""
        return weights

    def sets_like(self, _: Weights) -> Mapping[str, Weights]:
        """See `Strategy`."""
        return {}

    def request(self, weights: Weights, _: Sets) -> Weights:
        """See `Strategy`."""
        return weights

    def answer_like(self, weights: Weights) -> Weights:
        """See `Strategy`."""
        return contribution_like(self.settings, weights)

    def combine(self, weights: Weights, _: Sets, updates: Mapping[str, StoredUpdate]) -> Combined:
        """See `Strategy`."""
        like = self.answer_like(weights)
        contributions = {site: (update.load(like), update.num_cases) for site, update in updates.items()}
        after = combine(self.settings, weights, contributions, self.max_share)
        if phase_of(weights) is Phase.PREPARE or not isinstance(self.settings.model, BoostedTrees | Forest):
            check_state(self.settings, after)  # else its trees, each of them checked, are all that is new
        return Combined(after, {}, mean_loss(updates, self.max_share))

    def check(self, weights: Weights, update: ModelUpdate) -> Moved:
        """See `Strategy`."""
        check_contribution(self.settings, weights, update.weights, update.num_cases, update.train_loss)
        if self._averages(weights):
            return moved(update.weights, weights)
        trees_R = update.weights.get("trees")
        return (0.0 if trees_R is None else float(np.abs(trees_R[:, VALUES:]).max()), 0.0)

    def odd(self, weights: Weights, updates: Mapping[str, StoredUpdate]) -> dict[str, str]:
        """See `Strategy`."""
        like = self.answer_like(weights)
        if phase_of(weights) is Phase.PREPARE:
            return odd_inputs({site: update.load(like) for site, update in updates.items()})
        if self._averages(weights):
            return too_far(
                {site: update.moved for site, update in updates.items()}, {name: weights[name] for name in like}
            )
        return odd_leaves(self.settings, {site: update.moved[0] for site, update in updates.items()})

    def is_moderate(self, weights: Weights) -> bool:
        """See `Strategy`."""
        return are_moderate(self.settings, weights)

    def _averages(self, weights: Weights) -> bool:
        return isinstance(self.settings.model, MlpModel) and phase_of(weights) is Phase.FIT

    def is_finished(self, weights: Weights) -> bool:
        """See `Strategy`."""
        return is_finished(self.settings, weights)


def strategy_of(study: StudyConfig) -> Strategy:
    """The study's strategy."""
    settings = study.classification
    if settings is None or isinstance(settings.model, DeepModel):
        return Averaging(study.strategy or FedAvg(), study.rounds.max_share)
    return FeatureSums(settings, study.rounds.max_share)
