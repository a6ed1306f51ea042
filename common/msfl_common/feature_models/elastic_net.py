"""The elastic net (Zou and Hastie, J R Stat Soc B 2005), from the first sums, by coordinate descent: exact."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from msfl_common.feature_models.regression import LinearInSums
from msfl_common.feature_models.state import Floats

_TOLERANCE = 1e-12  # of the largest coefficient on the scale of its input, in one sweep
_MAX_SWEEPS = 100_000


class ElasticNet(LinearInSums):
    """Exact from sums: means and covariances of inputs and outcome."""

    kind: Literal["elastic-net"] = Field(description="which model")
    alpha: float = Field(0.1, gt=0, le=1e6, description="weight of both penalties beside half the mean squared error")
    l1_ratio: float = Field(
        0.5,
        ge=0,
        le=1,
        description="share of alpha that is of absolute coefficients (1: the lasso), not of their squares",
    )

    def slopes(self, covariance_QQ: Floats, cross_Q: Floats, num_cases: float) -> Floats:
        """See `LinearInSums`.

        What is minimised is scikit-learn's, |y - Xw|^2 / 2N + alpha (r |w|_1 + (1 - r) |w|^2 / 2), one coefficient
        after the other (Friedman, Hastie and Tibshirani, J Stat Softw 2010, "covariance updates"). An input without
        variance has none.
        """
        del num_cases
        absolute, squared = self.alpha * self.l1_ratio, self.alpha * (1 - self.l1_ratio)
        variance_Q = np.diag(covariance_QQ)
        slopes_Q, varying = np.zeros(len(cross_Q)), np.flatnonzero(variance_Q > 0)
        for _ in range(_MAX_SWEEPS):
            before_Q = slopes_Q.copy()
            for at in varying:
                left = cross_Q[at] - covariance_QQ[at] @ slopes_Q + variance_Q[at] * slopes_Q[at]
                shrunk = np.sign(left) * max(abs(left) - absolute, 0.0)
                slopes_Q[at] = shrunk / (variance_Q[at] + squared)
            scale_Q = np.sqrt(variance_Q)
            moved = np.abs(slopes_Q - before_Q) * scale_Q
            if moved.max(initial=0.0) <= _TOLERANCE * (np.abs(slopes_Q) * scale_Q).max(initial=0.0):
                break
        return slopes_Q
