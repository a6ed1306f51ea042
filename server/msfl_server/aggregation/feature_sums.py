"""A model of features from the sites' contributions: sums and trees, and a perceptron's layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from msfl_common.config.classification import Classification
from msfl_common.feature_models import Phase, check_state, contribution_like, is_finished, model_of, phase_of
from msfl_common.messages.layouts import POOLED, feature_layout
from msfl_common.messages.records import ModelUpdate
from msfl_common.models.weights import Weights
from msfl_common.secure_aggregation.ring import Words
from msfl_common.strategies.base import Sets
from msfl_server.aggregation.combined import Combined, mean_loss
from msfl_server.aggregation.feature_models.checks import check_contribution, odd_inputs, odd_leaves
from msfl_server.aggregation.feature_models.combine import combine, pooled
from msfl_server.aggregation.update_checks import moved, too_far
from msfl_server.aggregation.update_store import Moved, StoredUpdate


@dataclass(frozen=True)
class FeatureSums:
    """A model of features, from the sites' contributions to its state; see `msfl_common.feature_models`."""

    settings: Classification
    max_share: float = 1.0

    @property
    def can_go_back(self) -> bool:
        """See `Strategy`."""
        return model_of(self.settings).can_go_back

    @property
    def name(self) -> str:
        """See `Strategy`."""
        return f"{model_of(self.settings).kind} by contributions"

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

    def first_sums(self, weights: Weights, updates: Mapping[str, StoredUpdate]) -> dict[str, Weights]:
        """See `Strategy`."""
        if phase_of(weights) is not Phase.PREPARE:
            return {}
        like = self.answer_like(weights)
        return {site: update.load(like) for site, update in updates.items()}

    def combine(self, weights: Weights, _: Sets, updates: Mapping[str, StoredUpdate]) -> Combined:
        """See `Strategy`; where the sum suffices, it is the one that masked answers have."""
        like = self.answer_like(weights)
        each = {
            site: ModelUpdate(one.load(like), one.num_cases, one.train_loss, one.seconds)
            for site, one in sorted(updates.items())
        }
        if (together := pooled(self.settings, weights, each, self.max_share)) is not None:
            return self._combined(weights, {POOLED: together}, together.train_loss)
        return self._combined(weights, each, mean_loss(updates, self.max_share))

    def combine_sum(self, weights: Weights, _: Sets, total: Words) -> Combined:
        """See `Strategy`."""
        update = feature_layout(self.settings, weights).decode(total)
        self.check(weights, update)
        return self._combined(weights, {POOLED: update}, update.train_loss)

    def pooled_first_sums(self, weights: Weights, update: ModelUpdate) -> Weights | None:
        """See `Strategy`."""
        return update.weights if phase_of(weights) is Phase.PREPARE else None

    def _combined(self, weights: Weights, updates: Mapping[str, ModelUpdate], loss: float) -> Combined:
        contributions = {site: (one.weights, one.num_cases) for site, one in updates.items()}
        after = combine(self.settings, weights, contributions, self.max_share)
        if phase_of(weights) is Phase.PREPARE or not model_of(self.settings).adds_checked:
            check_state(self.settings, after)
        return Combined(after, {}, loss)

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
