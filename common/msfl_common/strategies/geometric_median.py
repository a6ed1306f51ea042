"""Geometric median (Pillutla, Kakade and Harchaoui 2022, "Robust Aggregation for Federated Learning"; RFA)."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from msfl_common.strategies.base import Answers, Combination, Strategy
from msfl_common.strategies.robust import Floats, mean_of, squared_distances


class GeometricMedian(Strategy):
    """The weights z that have the least sum of shares times distances to the sites', by the smoothed Weiszfeld method.

    From the mean on, z is the mean by share_i / max(smoothing, |z - w_i|). All of these are means of the sites'
    weights: the iterations need the distances between sites alone, and the weights are read once more for the last.
    """

    kind: Literal["geometric-median"] = Field(
        "geometric-median", description="the weights that lie nearest to all sites' together"
    )
    iterations: int = Field(100, ge=1, le=10_000, description="at most; the paper makes do with 3")
    smoothing: float = Field(1e-6, gt=0, le=1, description="distances below it count as it")

    @property
    def fewest_sites(self) -> int:
        """Of two, every weights between them lie as near."""
        return 3

    def combine(self, answers: Answers) -> Combination:
        """See the class."""
        sites = [*answers.shares]
        shares_S = np.array([answers.shares[site] for site in sites])
        found_S = weiszfeld(squared_distances(answers, sites), shares_S, self.iterations, self.smoothing)
        return mean_of(answers, dict(zip(sites, found_S.tolist(), strict=True)))


def weiszfeld(distances_SS: Floats, shares_S: Floats, iterations: int, smoothing: float) -> Floats:
    """The part of each point in their geometric median.

    Args:
        distances_SS: squared, between the points.
        shares_S: weight of each.
        iterations: at most.
        smoothing: see `GeometricMedian`.
    """
    parts_S: Floats = shares_S / shares_S.sum()
    for _ in range(iterations):
        # |sum of p_i w_i - w_k|^2 of parts that add up to 1
        squares_S = distances_SS @ parts_S - 0.5 * parts_S @ distances_SS @ parts_S
        pulls_S = shares_S / np.maximum(smoothing, np.sqrt(np.maximum(squares_S, 0.0)))
        before_S, parts_S = parts_S, pulls_S / pulls_S.sum()
        if np.abs(parts_S - before_S).max() < 1e-12:
            break
    return parts_S
