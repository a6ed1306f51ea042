"""What the updates of a round come to, and what each counts for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from msfl_common.models.weights import Weights
from msfl_common.strategies.base import Sets
from msfl_server.aggregation.update_checks import capped_shares
from msfl_server.aggregation.update_store import StoredUpdate


@dataclass(frozen=True)
class Combined:
    """What a round came to: new weights, the sets to keep, if any, and the training loss, if any site trained."""

    weights: Weights
    sets: Sets
    loss: float | None


def shares_of(updates: Mapping[str, StoredUpdate], max_share: float) -> dict[str, float]:
    """Each site's share by its training cases, in alphabetical order; none is above `max_share`."""
    return capped_shares({site: update.num_cases for site, update in updates.items()}, max_share)


def mean_loss(updates: Mapping[str, StoredUpdate], max_share: float = 1.0) -> float:
    """The mean of the sites' training losses, weighted by their shares."""
    return sum(part * updates[site].train_loss for site, part in shares_of(updates, max_share).items())
