"""What a round's updates come to."""

from __future__ import annotations

from dataclasses import dataclass

from msfl_common.models.weights import Weights


@dataclass(frozen=True)
class Combined:
    """What a round came to: new weights, the momentum to keep, if any, and the training loss, if any site trained."""

    weights: Weights
    momentum: Weights | None
    loss: float | None
