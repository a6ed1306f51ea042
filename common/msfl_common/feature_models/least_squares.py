"""Least squares of each class's indicator, from the first sums: exact."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from msfl_common.feature_models.first_sums import Sums, indicator_sums, least_solution
from msfl_common.feature_models.linear import LinearScores
from msfl_common.feature_models.settings import Settings
from msfl_common.feature_models.state import Floats, Phase, State, scalar

_SHARED_LINK = (4.0, -2.0)  # the logistic curve that is 1/2, and as steep as the line, at 1/2


class LeastSquares(LinearScores):
    """Exact from sums: each class's count, mean and covariance."""

    kind: Literal["least-squares"] = Field(description="which model")

    can_be_solved: ClassVar[bool] = False
    sums_suffice: ClassVar[bool] = True
    num_rounds_needed: ClassVar[int | None] = 1

    def num_scatters(self, settings: Settings) -> int:
        """See `FeatureModel`."""
        del settings
        return 1

    def first_arrays(self, settings: Settings, num_prepared: int, seed: int) -> State:
        """See `FeatureModel`."""
        del seed
        num = self.num_scores(settings)
        return {"coefficients": np.zeros((num, num_prepared + 1)), "link": _links(num)}

    def after_first_sums(self, settings: Settings, state: State, sums: Sums) -> State:
        """Of each class's indicator (0 or 1), with an intercept.

        A direction in which nothing varies gets no weight (pseudo-inverse), so inputs may outnumber cases.
        """
        projection_PQ, num = state["projection"], self.num_scores(settings)
        covariance_QQ = projection_PQ.T @ sums.covariance @ projection_PQ
        cross_QV = projection_PQ.T @ indicator_sums(sums, num) / sums.num_cases
        slopes_VQ = least_solution(covariance_QQ, cross_QV, np.diag(covariance_QQ)).T
        offsets_V = (sums.counts_K / sums.num_cases)[-num:]
        coefficients_VM = np.column_stack([slopes_VQ, offsets_V])
        return {"coefficients": coefficients_VM, "link": _links(num), "phase": scalar(Phase.DONE)}


def _links(num_scores: int) -> Floats:
    """The fixed step from scores to probabilities."""
    return np.tile(_SHARED_LINK, (num_scores, 1))
