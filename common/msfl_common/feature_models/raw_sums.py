"""Each site's first sums are about its own means; those about 0 add up, and give those about the common means.

In whole numbers, as floating point would lose the deviations of an input that varies little beside its mean.

Legend: see the package.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Whole = NDArray[Any]  # of Python's integers
WholeSums = dict[str, Whole]


def about_zero(sums: Mapping[str, Whole], one: int) -> WholeSums:
    """Squares and scatter about 0, from those about the classes' means.

    Args:
        sums: `counts`, `sums`, `squares` and maybe `scatter`, as multiples of 1 / `one`.
        one: what stands for 1.
    """
    return {name: value + _of_means(name, sums, one) for name, value in sums.items()}


def about_means(sums: Mapping[str, Whole], one: int) -> WholeSums:
    """Squares and scatter about the classes' means, from those about 0; rounding leaves no square below 0."""
    about = {name: value - _of_means(name, sums, one) for name, value in sums.items()}
    return about | {"squares": np.maximum(about["squares"], 0)}


def _of_means(name: str, sums: Mapping[str, Whole], one: int) -> Whole:
    """What lies between the two, of one of the arrays."""
    sums_KP = sums["sums"]
    whole_K = np.maximum(sums["counts"] // one, 1) * one
    if name == "squares":
        return np.asarray(sums_KP**2 // whole_K[:, None])
    if name == "scatter":
        of_each_KPP = sums_KP[:, :, None] * sums_KP[:, None, :] // whole_K[:, None, None]
        return np.asarray(of_each_KPP if len(sums["scatter"]) > 1 else of_each_KPP.sum(axis=0, keepdims=True))
    return np.zeros_like(sums[name])
