"""Federated averaging (McMahan et al. 2017), weighted by training cases, by Flower's own strategy.

Server momentum is after Hsu, Qi and Brown 2019 (FedAvgM), in Nesterov's form, which Flower's own does not have.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
from flwr.app import Message
from flwr.serverapp.strategy import FedAvg

from msfl_common.errors import UpdateError
from msfl_common.messages import NUM_CASES, TRAIN_LOSS, ModelUpdate, unpack_update
from msfl_common.network import Weights
from msfl_server.federation_exchange import Answers
from msfl_server.summary import SiteFailure

log = logging.getLogger(__name__)


def accept_updates(
    answers: Answers, names: Mapping[int, str], expected: Weights
) -> tuple[dict[str, tuple[Message, ModelUpdate]], tuple[SiteFailure, ...]]:
    """Check each update; a bad one is refused with its site named and the rest go on."""
    accepted: dict[str, tuple[Message, ModelUpdate]] = {}
    failures = list(answers.failures)
    for node, reply in answers.replies.items():
        try:
            accepted[names[node]] = (reply, unpack_update(reply.content, expected))
        except UpdateError as error:
            log.warning("%s: update refused: %s", names[node], error)
            failures.append(SiteFailure(site=names[node], code="BAD_UPDATE"))
    return dict(sorted(accepted.items())), tuple(failures)


def aggregate(round_number: int, accepted: Mapping[str, tuple[Message, ModelUpdate]]) -> tuple[Weights, float]:
    """The weighted mean of checked updates and of their training losses, in the sites' alphabetical order."""
    strategy = FedAvg(weighted_by_key=NUM_CASES)
    arrays, metrics = strategy.aggregate_train(round_number, [reply for reply, _ in accepted.values()])
    assert arrays is not None
    assert metrics is not None
    loss = metrics[TRAIN_LOSS]
    assert isinstance(loss, float)
    return {name: np.asarray(array.numpy(), dtype=np.float32) for name, array in arrays.items()}, loss


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
