"""The updates of a round: each read and checked for itself, then held against the others, then combined."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from msfl_common.config.study import Rounds
from msfl_common.errors import RunError, UpdateError
from msfl_common.messages.records import Content, unpack_update
from msfl_common.models.weights import Weights
from msfl_common.strategies.base import Sets
from msfl_server.aggregation.combined import Combined
from msfl_server.aggregation.strategy import Strategy
from msfl_server.aggregation.update_checks import check_count
from msfl_server.aggregation.update_figures import UpdateFigures
from msfl_server.aggregation.update_store import StoredUpdate, UpdateStore
from msfl_server.results.summary import SiteFailure
from msfl_server.results.training_inputs import TrainingInputs, training_inputs
from msfl_server.rounds.culprits import combine_without_culprits
from msfl_server.rounds.failures import BAD_UPDATE

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Intake:
    """Reads updates.

    Attributes:
        strategy: what they are for.
        before: the weights that were sent.
        store: where they are kept.
        told: site to the training cases in its facts.
        rounds: the study's.
    """

    strategy: Strategy
    before: Weights
    store: UpdateStore
    told: Mapping[str, int]
    rounds: Rounds

    def read(self, site: str, content: Content) -> StoredUpdate:
        """A site's update, checked and on disk.

        Raises:
            UpdateError: it must not be combined, whatever the others send.
        """
        update = unpack_update(content, self.strategy.answer_like(self.before))
        check_count(update.num_cases, self.told.get(site), self.rounds)
        moved = self.strategy.check(self.before, update)
        return replace(self.store.keep(site, update), moved=moved)


@dataclass(frozen=True)
class Usable:
    """What a round came to: of which updates, and whose were left out; `combined` is None below the quorum.

    `training` is what first sums tell of the sites' training cases, `figures` how long and how alike updates are.
    """

    combined: Combined | None
    updates: Mapping[str, StoredUpdate]
    failures: tuple[SiteFailure, ...]
    training: Mapping[str, TrainingInputs]
    figures: Mapping[str, UpdateFigures]


def combine_usable(
    strategy: Strategy,
    before: Weights,
    sets: Sets,
    updates: Mapping[str, StoredUpdate],
    quorum: int,
    earlier: Mapping[str, float | None] | None = None,
) -> Usable:
    """Combine all updates but those that are too far off, or that nothing can be combined with.

    `earlier` is how far the sites' updates of the round before agreed with the others', see `update_figures`.

    Raises:
        RunError: they cannot be combined whichever is left out.
    """
    with np.errstate(all="ignore"):
        refused = strategy.odd(before, updates)
    left = {site: update for site, update in updates.items() if site not in refused}
    combined = None
    if len(left) >= quorum:
        combined, culprits = _combine(strategy, before, sets, left, quorum)
        refused |= dict.fromkeys(
            culprits, "with it, the updates of this round combine to nothing that could be continued from"
        )
    for site, why in sorted(refused.items()):
        log.warning("%s: answer refused: %s", site, why)
    left = {site: update for site, update in left.items() if site not in refused}
    training = {site: training_inputs(sums) for site, sums in strategy.first_sums(before, left).items()}
    failures = tuple(SiteFailure(site=site, code=BAD_UPDATE) for site in sorted(refused))
    figures = strategy.figures(before, left, earlier or {})
    for site, one in figures.items():
        if one.odd is not None:
            log.warning("%s: its update counts, but stands out: %s", site, one.odd)
    return Usable(combined, left, failures, training, figures)


def _combine(
    strategy: Strategy, before: Weights, sets: Sets, updates: Mapping[str, StoredUpdate], quorum: int
) -> tuple[Combined, tuple[str, ...]]:
    """What the updates come to, and who had to be left out for it to be moderate, or else to be anything at all."""

    def combine(parts: Mapping[str, StoredUpdate]) -> Combined:
        return strategy.combine(before, sets, parts)

    def moderately(parts: Mapping[str, StoredUpdate]) -> Combined:
        combined = combine(parts)
        if not strategy.is_moderate(combined.weights):
            raise UpdateError("the combined weights are beyond what sites answer")
        return combined

    try:
        return combine_without_culprits(moderately, updates, quorum)
    except RunError:
        return combine_without_culprits(combine, updates, quorum)
