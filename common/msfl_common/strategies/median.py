"""Coordinate-wise median (Yin et al. 2018, "Byzantine-Robust Distributed Learning", option I)."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from msfl_common.strategies.base import Answers, Combination
from msfl_common.strategies.robust import FaultTolerant, by_coordinate


class Median(FaultTolerant):
    """Each value is the median of the sites'; of an even number of sites, the mean of the middle two."""

    kind: Literal["median"] = Field("median", description="the median of the sites' weights, value by value")

    @property
    def fewest_sites(self) -> int:
        """Wrong ones must be fewer than half."""
        return 2 * self.faulty + 1

    def combine(self, answers: Answers) -> Combination:
        """See the class."""
        self.expect_sites(len(answers.updates))
        return Combination(by_coordinate(answers, lambda values_SB: np.median(values_SB, axis=0), [*answers.shares]))
