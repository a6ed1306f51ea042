"""Networks: a study's strategy, held to what an update and what becomes of it may be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from msfl_common.messages.records import ModelUpdate
from msfl_common.models.weights import Weights, expect_finite
from msfl_common.strategies.base import WEIGHTS, Answers, Arrays, Sets
from msfl_common.strategies.base import Strategy as TrainingStrategy
from msfl_common.strategies.declared import expect_like, expect_sets, parted_layers
from msfl_common.strategies.sets import expect_moderate, flattened, length, likes, parted, zeros
from msfl_server.aggregation.combined import Combined, mean_loss, shares_of
from msfl_server.aggregation.update_checks import moved, too_far, too_long
from msfl_server.aggregation.update_store import Moved, StoredUpdate


@dataclass(frozen=True)
class Averaging:
    """A network by a strategy of `msfl_common.strategies`; weights here are those that sites share."""

    strategy: TrainingStrategy
    max_share: float = 1.0

    can_go_back = True

    @property
    def name(self) -> str:
        """See `Strategy`."""
        return self.strategy.kind

    def shared(self, weights: Weights) -> Weights:
        """See `Strategy`."""
        return parted_layers(self.strategy, weights)[0]

    def sets_like(self, weights: Weights) -> Mapping[str, Arrays]:
        """See `Strategy`."""
        return likes(self.strategy.server_sets(weights))

    def request(self, weights: Weights, sets: Sets) -> Weights:
        """See `Strategy`."""
        declared, sent = self.strategy.server_sets(weights), self.strategy.sends
        state = sets or zeros({name: declared[name] for name in sent})
        return flattened(weights, {name: state[name] for name in sent})

    def answer_like(self, weights: Weights) -> Weights:
        """See `Strategy`."""
        return flattened(weights, likes(self.strategy.answered_sets(weights)))

    def check(self, weights: Weights, update: ModelUpdate) -> Moved:
        """See `Strategy`."""
        declared = self.strategy.answered_sets(weights)
        own, sets = parted(update.weights, weights, declared)
        expect_moderate(sets, declared)
        return (*moved(own, weights), *(length(sets[name]) for name in declared))

    def odd(self, weights: Weights, updates: Mapping[str, StoredUpdate]) -> dict[str, str]:
        """See `Strategy`."""
        odd = too_far({site: update.moved[:2] for site, update in updates.items()}, weights)
        for number, name in enumerate(self.strategy.answered_sets(weights), start=2):
            odd = too_long(name, {site: update.moved[number] for site, update in updates.items()}) | odd
        return odd

    def first_sums(self, weights: Weights, updates: Mapping[str, StoredUpdate]) -> dict[str, Weights]:
        """See `Strategy`: a network has none."""
        del weights, updates
        return {}

    def combine(self, weights: Weights, sets: Sets, updates: Mapping[str, StoredUpdate]) -> Combined:
        """See `Strategy`."""
        declared, shares = self.strategy.server_sets(weights), shares_of(updates, self.max_share)
        ordered = {site: updates[site] for site in shares}
        made = self.strategy.combine(Answers(weights, sets or zeros(declared), ordered, shares))
        expect_like(self.strategy, "combine", WEIGHTS, made.weights, weights)
        expect_sets(self.strategy, "combine", made.state, declared)
        expect_finite(made.weights)
        expect_moderate(made.state, declared)
        return Combined({name: made.weights[name] for name in weights}, made.state, mean_loss(updates, self.max_share))

    def is_moderate(self, _: Weights) -> bool:
        """See `Strategy`."""
        return True

    def is_finished(self, _: Weights) -> bool:
        """See `Strategy`."""
        return False
