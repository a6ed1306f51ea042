"""How far off predictions of a number were, and so where the number of another such patient probably lies."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from msfl_common.metrics.intervals import t95

COVERAGE = 0.95


class PredictionError(BaseModel):
    """Of patients that the model was not trained on, those of all sites together."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    rmse: float = Field(ge=0, description="root of the mean squared error, in the outcome's unit")
    num_cases: int = Field(ge=2, description="cases it is of")
    num_patients: int = Field(ge=2, description="patients those are of")

    def interval(self, value: float, lowest: float, highest: float) -> tuple[float, float]:
        """Where 95 of 100 such patients' numbers lie, if errors are normal and as large for all of them.

        Student's t of as many degrees of freedom as there were patients, as the error itself is estimated; cut to what
        is possible.
        """
        reach = t95(self.num_patients) * self.rmse * math.sqrt(1 + 1 / self.num_patients)
        return max(lowest, value - reach), min(highest, value + reach)


def prediction_error(moments_M: NDArray[np.float64], num_patients: int) -> PredictionError | None:
    """From the moments of these patients' cases (`metrics.regression`); None of fewer than two patients."""
    if num_patients < 2:
        return None
    cases, _, _, squares, products, predicted_squares, _ = map(float, moments_M)
    rmse = math.sqrt(max(squares - 2 * products + predicted_squares, 0.0) / cases)
    return PredictionError(rmse=rmse, num_cases=int(cases), num_patients=num_patients)
