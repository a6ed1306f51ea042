"""Linear regression by least squares, from the first sums: exact."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from msfl_common.feature_models.first_sums import least_solution
from msfl_common.feature_models.regression import LinearInSums
from msfl_common.feature_models.state import Floats


class LinearRegression(LinearInSums):
    """Exact from sums: means and covariances of inputs and outcome."""

    kind: Literal["linear-regression"] = Field(description="which model")

    def slopes(self, covariance_QQ: Floats, cross_Q: Floats, num_cases: float) -> Floats:
        """See `LinearInSums`; a direction in which nothing varies gets no weight (pseudo-inverse)."""
        del num_cases
        return least_solution(covariance_QQ, cross_Q[:, None], np.diag(covariance_QQ))[:, 0]
