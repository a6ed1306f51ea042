"""Bulyan (El Mhamdi et al. 2018, "The Hidden Vulnerability of Distributed Learning in Byzantium"), over Krum."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from msfl_common.strategies.base import Answers, Combination
from msfl_common.strategies.robust import FaultTolerant, Floats, by_coordinate, krum_scores, squared_distances


class Bulyan(FaultTolerant):
    """Krum again and again takes one of those left, S - 2 faulty times; then, value by value, the mean near the median.

    Of the T values taken, the mean is of the T - 2 faulty that lie nearest to their median.
    """

    kind: Literal["bulyan"] = Field("bulyan", description="value by value, the mean of what lies near the median")

    @property
    def fewest_sites(self) -> int:
        """The paper's n >= 4 f + 3."""
        return 4 * self.faulty + 3

    def combine(self, answers: Answers) -> Combination:
        """See the class; of equals, the first in the alphabet."""
        self.expect_sites(len(answers.updates))
        sites = [*answers.shares]
        taken = self._taken(squared_distances(answers, sites))
        num_near = len(taken) - 2 * self.faulty

        def rule(values_SB: NDArray[Any]) -> Floats:
            apart_SB = np.abs(values_SB - np.median(values_SB, axis=0))
            near_SB = np.take_along_axis(values_SB, np.argsort(apart_SB, axis=0, kind="stable")[:num_near], axis=0)
            middle_B: Floats = near_SB.mean(axis=0, dtype=np.float64)
            return middle_B

        return Combination(by_coordinate(answers, rule, [sites[number] for number in taken]))

    def _taken(self, distances_SS: Floats) -> list[int]:
        """The sites that Krum takes; once fewer than its 2 f + 3 are left, the best of the last scores follow."""
        left, taken = list(range(len(distances_SS))), list[int]()
        num_taken = len(left) - 2 * self.faulty
        while len(taken) < num_taken:
            scores_S = krum_scores(distances_SS[np.ix_(left, left)], self.faulty)
            best = [left[number] for number in np.argsort(scores_S, kind="stable")]
            is_last = len(left) == 2 * self.faulty + 3
            taken += best[: num_taken - len(taken) if is_last else 1]
            left = [site for site in left if site not in taken]
        return sorted(taken)
