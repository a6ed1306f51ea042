"""Multi-Krum (Blanchard et al. 2017, "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent")."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from msfl_common.strategies.base import Answers, Combination
from msfl_common.strategies.robust import FaultTolerant, krum_scores, mean_of, squared_distances


class MultiKrum(FaultTolerant):
    """The plain mean of the sites that Krum scores best."""

    kind: Literal["multikrum"] = Field("multikrum", description="the mean of the sites that most others are near to")
    selected: int | None = Field(
        None, ge=1, le=10_000, description="how many sites are averaged; null: all but `faulty` of those that answered"
    )

    @property
    def fewest_sites(self) -> int:
        """The paper's n >= 2 f + 3; and as many as are averaged must be right."""
        return max(2 * self.faulty + 3, (self.selected or 0) + self.faulty)

    def combine(self, answers: Answers) -> Combination:
        """See the class; of equals, the first in the alphabet."""
        self.expect_sites(len(answers.updates))
        sites = [*answers.shares]
        selected = self.selected or len(sites) - self.faulty
        scores_S = krum_scores(squared_distances(answers, sites), self.faulty)
        best = sorted(np.argsort(scores_S, kind="stable")[:selected].tolist())
        return mean_of(answers, {sites[number]: 1 / selected for number in best})
