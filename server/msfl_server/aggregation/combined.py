"""What the updates of a round come to, and what each counts for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import median_high

from msfl_common.config.base import Task
from msfl_common.messages.records import ValidationMetrics
from msfl_common.models.weights import Weights
from msfl_common.strategies.base import Sets
from msfl_server.aggregation.update_checks import capped_shares
from msfl_server.aggregation.update_store import StoredUpdate

# By task, what a model is judged by at the sites, and what chance gives of it.
JUDGED: dict[Task, tuple[str, float]] = {
    "lesion-segmentation": ("dsc", 0.0),
    "new-lesions": ("new_lesion_f1", 0.0),
    "classification": ("auroc", 0.5),
    "regression": ("r2", 0.0),
}

_SURER = 2.0  # times as sure of its figure as the usual site, at most


@dataclass(frozen=True)
class Combined:
    """What a round came to: new weights, the sets to keep, if any, and the training loss, if any site trained."""

    weights: Weights
    sets: Sets
    loss: float | None


def shares_of(updates: Mapping[str, StoredUpdate], max_share: float) -> dict[str, float]:
    """Each site's share by its weight or training cases, in alphabetical order; none is above `max_share`."""
    return capped_shares(
        {site: update.num_cases if update.weight is None else update.weight for site, update in updates.items()},
        max_share,
    )


def is_by_cases(updates: Mapping[str, StoredUpdate], max_share: float) -> bool:
    """Whether each site counts for its cases, neither weighted otherwise nor capped."""
    unweighted = all(update.weight is None for update in updates.values())
    return unweighted and shares_of(updates, max_share) == shares_of(updates, 1.0)


def weighted(
    updates: Mapping[str, StoredUpdate], weighting: str, validation: Mapping[str, ValidationMetrics], task: Task
) -> dict[str, StoredUpdate]:
    """Updates that count for what `rounds.weighting` says.

    A standard error of few patients who happen to be alike is next to nothing, and a site may make its own up. So none
    counts as less than half of the sites' upper median: a site counts at most four times as much as the usual one.

    Args:
        updates: by site.
        weighting: see `Rounds`.
        validation: each site's last, by site.
        task: what the model learns.
    """
    if weighting == "equal":
        return {site: replace(update, weight=1.0) for site, update in updates.items()}
    errors = {site: _standard_error(validation.get(site), JUDGED[task][0]) for site in updates}
    if weighting == "cases" or not errors or not all(error > 0 for error in errors.values()):
        return dict(updates)
    usual = median_high(errors.values())
    return {
        site: replace(update, weight=(usual / max(errors[site], usual / _SURER)) ** 2)
        for site, update in updates.items()
    }


def _standard_error(told: ValidationMetrics | None, metric: str) -> float:
    """Of a site's metric; 0 where it is not known."""
    estimate = told.estimates.get(metric) if told else None
    return estimate.standard_error if estimate and math.isfinite(estimate.standard_error) else 0.0


def mean_loss(updates: Mapping[str, StoredUpdate], max_share: float = 1.0) -> float:
    """The mean of the sites' training losses, weighted by their shares."""
    return sum(part * updates[site].train_loss for site, part in shares_of(updates, max_share).items())
