"""Krum (Blanchard et al. 2017, "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent")."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from msfl_common.strategies.base import Answers, Combination
from msfl_common.strategies.robust import FaultTolerant, krum_scores, mean_of, squared_distances


class Krum(FaultTolerant):
    """The weights of the one site that is nearest to its S - faulty - 2 nearest others, by squared distances."""

    kind: Literal["krum"] = Field("krum", description="the weights of the one site that most others are near to")

    @property
    def fewest_sites(self) -> int:
        """The paper's n >= 2 f + 3."""
        return 2 * self.faulty + 3

    def combine(self, answers: Answers) -> Combination:
        """See the class; of equals, the first in the alphabet."""
        self.expect_sites(len(answers.updates))
        sites = [*answers.shares]
        scores_S = krum_scores(squared_distances(answers, sites), self.faulty)
        return mean_of(answers, {sites[int(np.argmin(scores_S))]: 1.0})
