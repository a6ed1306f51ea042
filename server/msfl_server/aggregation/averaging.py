"""Networks: a study's strategy, held to what an update and what becomes of it may be."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from msfl_common.errors import UpdateError
from msfl_common.messages.layouts import POOLED
from msfl_common.messages.network_layout import FlatUpdate, network_layout
from msfl_common.messages.records import ModelUpdate
from msfl_common.models.weights import Weights, expect_finite
from msfl_common.secure_aggregation.ring import Words
from msfl_common.strategies.base import WEIGHTS, Answers, Arrays, Combination, Sets, SiteUpdate
from msfl_common.strategies.base import Strategy as TrainingStrategy
from msfl_common.strategies.declared import expect_like, expect_sets, parted_layers
from msfl_common.strategies.sets import expect_moderate, flat_name, flattened, length, likes, parted, zeros
from msfl_server.aggregation.combined import Combined, is_by_cases, mean_loss, shares_of
from msfl_server.aggregation.update_checks import moved, too_far, too_long
from msfl_server.aggregation.update_figures import UpdateFigures, update_figures
from msfl_server.aggregation.update_store import Moved, StoredUpdate


def applied(
    strategy: TrainingStrategy,
    before: Weights,
    sets: Sets,
    updates: Mapping[str, SiteUpdate],
    shares: Mapping[str, float],
) -> Combination:
    """What a strategy makes of a round, held to what it declares.

    Args:
        strategy: the study's.
        before: the weights that were sent.
        sets: the strategy's; none are zeros.
        updates: by site, in the order of `shares`.
        shares: each site's share.

    Raises:
        ConfigError: the strategy made what it did not declare.
        UpdateError: what it made is not finite.
        RunError: it needs more sites.
    """
    declared = strategy.server_sets(before)
    made = strategy.combine(Answers(before, sets or zeros(declared), updates, shares))
    expect_like(strategy, "combine", WEIGHTS, made.weights, before)
    expect_sets(strategy, "combine", made.state, declared)
    expect_finite(made.weights)
    expect_moderate(made.state, declared)
    return Combination({name: made.weights[name] for name in before}, made.state)


@dataclass(frozen=True)
class Pooled:
    """All sites' updates as one, for a strategy."""

    update: ModelUpdate

    @property
    def num_cases(self) -> int:
        """See `SiteUpdate`."""
        return self.update.num_cases

    @property
    def train_loss(self) -> float:
        """See `SiteUpdate`."""
        return self.update.train_loss

    def array(self, name: str, of: str = WEIGHTS) -> NDArray[Any]:
        """See `SiteUpdate`."""
        return self.update.weights[name if of == WEIGHTS else flat_name(of, name)]


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

    def figures(
        self, weights: Weights, updates: Mapping[str, StoredUpdate], earlier: Mapping[str, float | None]
    ) -> dict[str, UpdateFigures]:
        """See `Strategy`."""
        return update_figures(weights, updates, earlier)

    def first_sums(self, weights: Weights, updates: Mapping[str, StoredUpdate]) -> dict[str, Weights]:
        """See `Strategy`: a network has none."""
        del weights, updates
        return {}

    def combine(self, weights: Weights, sets: Sets, updates: Mapping[str, StoredUpdate]) -> Combined:
        """See `Strategy`; where the sum suffices, it is the one that masked updates have.

        A model that comes apart may go further than the sum holds: its updates are averaged as they are, as what the
        sites measure then says whether it is set back.
        """
        shares = shares_of(updates, self.max_share)
        if self.strategy.sums_suffice and is_by_cases(updates, self.max_share):
            together = None
            with suppress(UpdateError):
                together = self._summed(weights, updates)
            if together is not None:
                return self._of_sum(weights, sets, together)
        ordered = {site: updates[site] for site in shares}
        return self._combined(weights, sets, ordered, shares, mean_loss(updates, self.max_share))

    def combine_sum(self, weights: Weights, sets: Sets, total: Words) -> Combined:
        """See `Strategy`."""
        update = network_layout(self.strategy, weights).decode(total)
        self.check(weights, update)
        return self._of_sum(weights, sets, update)

    def pooled_first_sums(self, weights: Weights, update: ModelUpdate) -> Weights | None:
        """See `Strategy`: a network has none."""
        del weights, update
        return None

    def _summed(self, weights: Weights, updates: Mapping[str, StoredUpdate]) -> ModelUpdate:
        layout = network_layout(self.strategy, weights)
        each = (
            FlatUpdate(one.values(), (one.num_cases, one.train_loss, one.seconds), max(one.moved))
            for one in updates.values()
        )
        return layout.decode(layout.total(each, len(updates)))

    def _of_sum(self, weights: Weights, sets: Sets, update: ModelUpdate) -> Combined:
        return self._combined(weights, sets, {POOLED: Pooled(update)}, {POOLED: 1.0}, update.train_loss)

    def _combined(
        self, weights: Weights, sets: Sets, updates: Mapping[str, SiteUpdate], shares: Mapping[str, float], loss: float
    ) -> Combined:
        made = applied(self.strategy, weights, sets, updates, shares)
        return Combined(made.weights, made.state, loss)

    def is_moderate(self, _: Weights) -> bool:
        """See `Strategy`."""
        return True

    def is_finished(self, _: Weights) -> bool:
        """See `Strategy`."""
        return False
