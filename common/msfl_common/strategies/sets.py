"""Sets of arrays beside a network's weights, as one: for a message, a file and a ledger."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msfl_common.errors import UpdateError
from msfl_common.strategies.base import Arrays, SetLike, Sets


def flat_name(of: str, name: str) -> str:
    """What an array of a set is called beside a network's own."""
    return f"{of}/{name}"


def flattened(weights: Arrays, sets: Sets) -> Arrays:
    """Weights, and then the arrays of each set."""
    beside = {flat_name(of, name): value for of, arrays in sets.items() for name, value in arrays.items()}
    return {**weights, **beside} if beside else weights


def parted(flat: Arrays, weights: Arrays, declared: Mapping[str, SetLike]) -> tuple[Arrays, dict[str, Arrays]]:
    """What `flattened` put together; `weights` says which are the network's own."""
    own = {name: flat[name] for name in weights}
    return own, {of: {name: flat[flat_name(of, name)] for name in one.like} for of, one in declared.items()}


def likes(declared: Mapping[str, SetLike]) -> dict[str, Arrays]:
    """What the arrays of each set look like."""
    return {of: one.like for of, one in declared.items()}


def zeros(declared: Mapping[str, SetLike]) -> dict[str, Arrays]:
    """What the sets are before the first round."""
    return {of: {name: np.zeros_like(value) for name, value in one.like.items()} for of, one in declared.items()}


def shape_only(value: NDArray[Any]) -> NDArray[Any]:
    """An array of the same shape and type that takes no memory: all of its values are one 0."""
    return np.broadcast_to(np.zeros((), value.dtype), value.shape)


def expect_moderate(sets: Sets, declared: Mapping[str, SetLike]) -> None:
    """Refuse sets that are not as declared, or with a value that no honest round comes to.

    Raises:
        UpdateError: other sets, names or shapes, or a value that is not finite or too large.
    """
    if set(sets) != set(declared):
        raise UpdateError(f"expected the sets {sorted(declared)}, found {sorted(sets)}")
    for of, one in declared.items():
        if {name: value.shape for name, value in sets[of].items()} != {n: v.shape for n, v in one.like.items()}:
            raise UpdateError(f"{of}: expected other arrays")
        for name, value in sets[of].items():
            largest = float(np.abs(value).max(initial=0.0))
            if not largest <= one.most or not np.isfinite(largest):
                raise UpdateError(f"{flat_name(of, name)}: a value of {largest:.3g}, at most {one.most:g} is expected")


def length(arrays: Arrays) -> float:
    """The Euclidean length of all arrays together."""
    with np.errstate(all="ignore"):
        return float(np.sqrt(sum(float(np.square(value, dtype=np.float64).sum()) for value in arrays.values())))
