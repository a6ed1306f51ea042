"""A model of features from the sites' contributions: sums and trees, and a perceptron's layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from msfl_common.config.classification import Classification
from msfl_common.feature_models import Phase, check_state, contribution_like, is_finished, model_of, phase_of
from msfl_common.messages.layouts import POOLED, feature_layout
from msfl_common.messages.records import ModelUpdate
from msfl_common.models.weights import Weights
from msfl_common.secure_aggregation.ring import Words
from msfl_common.strategies.base import Sets, SiteUpdate
from msfl_common.strategies.base import Strategy as TrainingStrategy
from msfl_common.strategies.sets import likes
from msfl_server.aggregation.averaging import Pooled, applied
from msfl_server.aggregation.combined import Combined, mean_loss, shares_of
from msfl_server.aggregation.feature_models.checks import check_contribution, odd_inputs, odd_leaves
from msfl_server.aggregation.feature_models.combine import combine, pooled
from msfl_server.aggregation.update_checks import moved, too_far
from msfl_server.aggregation.update_figures import UpdateFigures
from msfl_server.aggregation.update_store import Moved, StoredUpdate


@dataclass(frozen=True)
class FeatureSums:
    """A model of features, from the sites' contributions to its state; see `msfl_common.feature_models`."""

    settings: Classification
    max_share: float = 1.0
    strategy: TrainingStrategy | None = None  # of layers that are averaged; None: their mean

    @property
    def can_go_back(self) -> bool:
        """See `Strategy`."""
        return model_of(self.settings).can_go_back

    @property
    def name(self) -> str:
        """See `Strategy`."""
        kind = model_of(self.settings).kind
        return f"{kind} by {self.strategy.kind}" if self.strategy else f"{kind} by contributions"

    def shared(self, weights: Weights) -> Weights:
        """See `Strategy`."""
        return weights

    def sets_like(self, weights: Weights) -> Mapping[str, Weights]:
        """See `Strategy`."""
        if self.strategy is None or not self._averages(weights):
            return {}
        return likes(self.strategy.server_sets(self.answer_like(weights)))

    def request(self, weights: Weights, _: Sets) -> Weights:
        """See `Strategy`."""
        return weights

    def answer_like(self, weights: Weights) -> Weights:
        """See `Strategy`."""
        return contribution_like(self.settings, weights)

    def figures(
        self, weights: Weights, updates: Mapping[str, StoredUpdate], earlier: Mapping[str, float | None]
    ) -> dict[str, UpdateFigures]:
        """See `Strategy`: none are of sums, and of layers none are told."""
        del weights, updates, earlier
        return {}

    def first_sums(self, weights: Weights, updates: Mapping[str, StoredUpdate]) -> dict[str, Weights]:
        """See `Strategy`."""
        if phase_of(weights) is not Phase.PREPARE:
            return {}
        like = self.answer_like(weights)
        return {site: update.load(like) for site, update in updates.items()}

    def combine(self, weights: Weights, sets: Sets, updates: Mapping[str, StoredUpdate]) -> Combined:
        """See `Strategy`; where the sum suffices, it is the one that masked answers have."""
        if self.strategy is not None and not self.strategy.sums_suffice and self._averages(weights):
            shares = shares_of(updates, self.max_share)
            ordered = {site: updates[site] for site in shares}
            return self._by_strategy(weights, sets, ordered, shares, mean_loss(updates, self.max_share))
        like = self.answer_like(weights)
        each = {
            site: ModelUpdate(one.load(like), one.num_cases, one.train_loss, one.seconds)
            for site, one in sorted(updates.items())
        }
        if (together := pooled(self.settings, weights, each, self.max_share)) is not None:
            return self._of_sum(weights, sets, together)
        loss = mean_loss(updates, self.max_share)
        if self.strategy is not None and self._averages(weights):
            parts = {site: Pooled(one) for site, one in each.items()}
            return self._by_strategy(weights, sets, parts, shares_of(updates, self.max_share), loss)
        return self._combined(weights, each, loss)

    def combine_sum(self, weights: Weights, sets: Sets, total: Words) -> Combined:
        """See `Strategy`."""
        update = feature_layout(self.settings, weights).decode(total)
        self.check(weights, update)
        return self._of_sum(weights, sets, update)

    def pooled_first_sums(self, weights: Weights, update: ModelUpdate) -> Weights | None:
        """See `Strategy`."""
        return update.weights if phase_of(weights) is Phase.PREPARE else None

    def _of_sum(self, weights: Weights, sets: Sets, update: ModelUpdate) -> Combined:
        if self.strategy is not None and self._averages(weights):
            return self._by_strategy(weights, sets, {POOLED: Pooled(update)}, {POOLED: 1.0}, update.train_loss)
        return self._combined(weights, {POOLED: update}, update.train_loss)

    def _by_strategy(
        self, weights: Weights, sets: Sets, updates: Mapping[str, SiteUpdate], shares: Mapping[str, float], loss: float
    ) -> Combined:
        assert self.strategy is not None
        layers = {name: weights[name] for name in self.answer_like(weights)}
        made = applied(self.strategy, layers, sets, updates, shares)
        after = {**weights, **made.weights}
        check_state(self.settings, after)
        return Combined(after, made.state, loss)

    def _combined(self, weights: Weights, updates: Mapping[str, ModelUpdate], loss: float) -> Combined:
        contributions = {site: (one.weights, one.num_cases) for site, one in updates.items()}
        after = combine(self.settings, weights, contributions, self.max_share)
        if phase_of(weights) is Phase.PREPARE or not model_of(self.settings).adds_checked:
            check_state(self.settings, after)
        sets = {of: {n: np.zeros_like(v) for n, v in like.items()} for of, like in self.sets_like(after).items()}
        return Combined(after, sets, loss)

    def check(self, weights: Weights, update: ModelUpdate) -> Moved:
        """See `Strategy`."""
        check_contribution(self.settings, weights, update.weights, update.num_cases, update.train_loss)
        if self._averages(weights):
            return moved(update.weights, weights)
        is_first = phase_of(weights) is Phase.PREPARE
        return (0.0 if is_first else model_of(self.settings).figure_of(update.weights), 0.0)

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
        return model_of(self.settings).is_moderate(weights)

    def _averages(self, weights: Weights) -> bool:
        return model_of(self.settings).averages and phase_of(weights) is Phase.FIT

    def is_finished(self, weights: Weights) -> bool:
        """See `Strategy`."""
        return is_finished(self.settings, weights)
