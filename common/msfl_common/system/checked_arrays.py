"""Arrays that others sent, held against what they can be."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from msfl_common.errors import UpdateError

_ROUNDING = 1e-9  # share of a matrix's largest value by which sums of products may miss what they are by definition


def check_scatter(name: str, scatter_PP: NDArray[np.float64]) -> None:
    """Refuse what is no sum of products of rows with themselves.

    Raises:
        UpdateError: it is not symmetric, or has a negative variance in some direction.
    """
    largest = float(np.abs(scatter_PP).max(initial=0.0))
    if not largest:
        return
    scaled_PP = scatter_PP / largest
    if np.abs(scaled_PP - scaled_PP.T).max() > _ROUNDING or np.linalg.eigvalsh(scaled_PP)[0] < -_ROUNDING * len(
        scaled_PP
    ):
        raise UpdateError(f"{name}: expected a symmetric matrix without negative variance")
