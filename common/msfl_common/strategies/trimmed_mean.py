"""Coordinate-wise trimmed mean (Yin et al. 2018, "Byzantine-Robust Distributed Learning", option II)."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from msfl_common.strategies.base import Answers, Combination
from msfl_common.strategies.robust import FaultTolerant, Floats, by_coordinate


class TrimmedMean(FaultTolerant):
    """Each value is the mean of the sites' without the `faulty` largest and the `faulty` smallest."""

    kind: Literal["trimmed-mean"] = Field(
        "trimmed-mean", description="value by value, the mean without the largest and smallest"
    )

    @property
    def fewest_sites(self) -> int:
        """One at least is left."""
        return 2 * self.faulty + 1

    def combine(self, answers: Answers) -> Combination:
        """See the class."""
        self.expect_sites(len(answers.updates))

        def rule(values_SB: NDArray[Any]) -> Floats:
            kept_SB = np.sort(values_SB, axis=0)[self.faulty : len(values_SB) - self.faulty]
            middle_B: Floats = kept_SB.mean(axis=0, dtype=np.float64)
            return middle_B

        return Combination(by_coordinate(answers, rule, [*answers.shares]))
