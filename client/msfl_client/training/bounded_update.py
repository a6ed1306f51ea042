"""An update that goes no further than a study allows."""

from __future__ import annotations

import numpy as np

from msfl_common.errors import Code, RefusedError
from msfl_common.models.weights import STATISTICS, Weights
from msfl_common.strategies.sets import length


def bounded_update(before: Weights, after: Weights, most: float | None) -> Weights:
    """Weights no further than `most` from those before: a longer way there is gone in part, in its direction.

    Args:
        before: as they were sent.
        after: after training.
        most: longest way of what is learned (L2 norm); running statistics go the same part of theirs. None: any.

    Raises:
        RefusedError: a value is not finite.
    """
    if most is None:
        return after
    with np.errstate(all="ignore"):
        ways = {name: value.astype(np.float64) - before[name] for name, value in after.items()}
        long = length({name: way for name, way in ways.items() if not name.endswith(STATISTICS)})
    if not np.isfinite(long):
        raise RefusedError(Code.TRAINING_DIVERGED, "the update is not finite")
    if long <= most:
        return after
    return {name: (before[name] + most / long * way).astype(before[name].dtype) for name, way in ways.items()}
