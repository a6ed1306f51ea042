"""Ridge regression (Hoerl and Kennard, Technometrics 1970), from the first sums: exact."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from msfl_common.feature_models.regression import LinearInSums
from msfl_common.feature_models.state import Floats


class Ridge(LinearInSums):
    """Exact from sums: means and covariances of inputs and outcome."""

    kind: Literal["ridge"] = Field(description="which model")
    alpha: float = Field(
        1.0, gt=0, le=1e6, description="weight of the squared coefficients beside the summed squared errors"
    )

    def slopes(self, covariance_QQ: Floats, cross_Q: Floats, num_cases: float) -> Floats:
        """See `LinearInSums`; what is minimised is scikit-learn's: |y - Xw|^2 + alpha |w|^2."""
        penalty_QQ = self.alpha / num_cases * np.eye(len(cross_Q))
        return np.linalg.solve(covariance_QQ + penalty_QQ, cross_Q)
