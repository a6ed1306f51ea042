"""Linear discriminant analysis from the first sums: exact."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from msfl_common.feature_models.first_sums import Sums, least_solution
from msfl_common.feature_models.linear import LinearScores
from msfl_common.feature_models.settings import Settings
from msfl_common.feature_models.state import Phase, State, scalar


class Lda(LinearScores):
    """Exact from sums: each class's count, mean and covariance."""

    kind: Literal["lda"] = Field(description="which model")

    can_be_solved: ClassVar[bool] = False
    sums_suffice: ClassVar[bool] = True
    num_rounds_needed: ClassVar[int | None] = 1

    def num_scores(self, settings: Settings) -> int:
        """See `FeatureModel`: one for each class."""
        return len(settings.outcome.classes)

    def num_scatters(self, settings: Settings) -> int:
        """See `FeatureModel`."""
        del settings
        return 1

    def first_arrays(self, settings: Settings, num_prepared: int, seed: int) -> State:
        """See `FeatureModel`."""
        del seed
        return {"coefficients": np.zeros((self.num_scores(settings), num_prepared + 1))}

    def after_first_sums(self, settings: Settings, state: State, sums: Sums) -> State:
        """As scikit-learn's solver "lsqr": covariance within classes divided by N, shares as priors.

        A direction in which nothing varies gets no weight (pseudo-inverse), so inputs may outnumber cases.
        """
        del settings
        projection_PQ = state["projection"]
        means_KQ = sums.between_KP @ projection_PQ
        within_QQ = projection_PQ.T @ sums.within @ projection_PQ / sums.num_cases
        slopes_KQ = least_solution(within_QQ, means_KQ.T, sums.variance_through(projection_PQ)).T
        offsets_K = np.log(sums.counts_K / sums.num_cases) - 0.5 * (slopes_KQ * means_KQ).sum(axis=1)
        return {"coefficients": np.column_stack([slopes_KQ, offsets_K]), "phase": scalar(Phase.DONE)}
