"""Federated averaging (McMahan et al. 2017), weighted by training cases.

Server momentum is after Hsu, Qi and Brown 2019 (FedAvgM), in Nesterov's form.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from msfl_common.models.weights import Weights
from msfl_server.aggregation.update_checks import capped_shares
from msfl_server.aggregation.update_store import StoredUpdate, flat_positions


def aggregate(updates: Mapping[str, StoredUpdate], like: Weights, max_share: float = 1.0) -> Weights:
    """The mean of the sites' updates, weighted by training cases; no site's share is above `max_share`.

    Summed in float32 in the sites' alphabetical order, so that who answered first does not matter.
    """
    share, weights = _shares(updates, max_share), {}
    for name, start, value in flat_positions(like):
        mean = np.zeros(value.size, np.float32)
        for site, part in share.items():
            mean += np.float32(part) * updates[site].read(start, value.size)
        weights[name] = mean.reshape(value.shape)
    return weights


def mean_loss(updates: Mapping[str, StoredUpdate], max_share: float = 1.0) -> float:
    """The mean of the sites' training losses, weighted likewise."""
    return sum(part * updates[site].train_loss for site, part in _shares(updates, max_share).items())


def _shares(updates: Mapping[str, StoredUpdate], max_share: float) -> dict[str, float]:
    return capped_shares({site: update.num_cases for site, update in updates.items()}, max_share)


def with_momentum(
    before: Weights, average: Weights, momentum: Weights | None, factor: float
) -> tuple[Weights, Weights | None]:
    """Carry the updates of earlier rounds on: v = factor v + (average - w), then w + (average - w) + factor v.

    Args:
        before: w, the weights that the round started from.
        average: what `aggregate` made of the sites' updates.
        momentum: v after the round before; None before the first.
        factor: 0, which leaves the average as it is, to below 1.

    Returns:
        The new weights and the new v, float32; v is None for a factor of 0.
    """
    if not factor:
        return average, None
    b = np.float32(factor)
    weights, velocity = {}, {}
    for name, w in before.items():
        delta = average[name] - w
        v = delta if momentum is None else b * momentum[name] + delta
        weights[name], velocity[name] = w + (delta + b * v), v
    return weights, velocity
