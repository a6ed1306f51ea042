"""Regression: models of a number. Of linear ones the first sums are all, in which the number is one more column.

Legend: see the package.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import numpy as np

from msfl_common.feature_models.first_sums import OutcomeSums, Sums
from msfl_common.feature_models.model import FeatureModel
from msfl_common.feature_models.settings import Settings
from msfl_common.feature_models.state import Floats, Phase, State, scalar

FIRST_OUTCOME = (0.0, 1.0)  # mean and standard deviation, before they are known
FURTHEST = 100.0  # standard deviations that no leaf of a tree is off


class RegressionModel(FeatureModel):
    """Predicts a number."""

    def num_scores(self, settings: Settings) -> int:
        """See `FeatureModel`."""
        del settings
        return 1

    def num_scatters(self, settings: Settings) -> int:
        """See `FeatureModel`; a selection goes by how inputs go along with the number."""
        return int(settings.preparation.reduction == "pca" or settings.preparation.selection != "none")

    @abstractmethod
    def values(self, state: State, prepared_NQ: Floats) -> Floats:
        """The number of each case, N, in the outcome's unit, from a state after the first sums."""

    def per_unit(self, state: State) -> Floats | None:
        """What one unit of each input adds to the number, P; None of a model that is not linear."""
        del state
        return None

    def probabilities(self, state: State, prepared_NQ: Floats) -> Floats:
        """See `FeatureModel`: there are no classes."""
        del state, prepared_NQ
        raise AssertionError(f"{self.kind}: predicts a number")

    def parts(self, state: State, scaled_P: Floats, number: int) -> Floats:
        """See `FeatureModel`; in the outcome's unit."""
        del number
        replaced_PP = np.where(np.eye(len(scaled_P), dtype=bool), state["mean"], scaled_P)
        prepared = (np.vstack([scaled_P, replaced_PP]) - state["mean"]) @ state["projection"]
        values = self.values(state, prepared)
        parts_P: Floats = values[0] - values[1:]
        return parts_P


class LinearInSums(RegressionModel):
    """An intercept, and prepared inputs times coefficients, which follow from the first sums."""

    can_be_solved: ClassVar[bool] = False
    sums_suffice: ClassVar[bool] = True
    num_rounds_needed: ClassVar[int | None] = 1

    @abstractmethod
    def slopes(self, covariance_QQ: Floats, cross_Q: Floats, num_cases: float) -> Floats:
        """The coefficients of the prepared inputs, Q.

        Args:
            covariance_QQ: of prepared inputs, divided by the number of cases.
            cross_Q: covariance of each with the outcome, divided by the number of cases.
            num_cases: N.
        """

    def num_scatters(self, settings: Settings) -> int:
        """See `FeatureModel`."""
        del settings
        return 1

    def first_arrays(self, settings: Settings, num_prepared: int, seed: int) -> State:
        """See `FeatureModel`."""
        del settings, seed
        return {"coefficients": np.zeros((1, num_prepared + 1))}

    def after_first_sums(self, settings: Settings, state: State, sums: Sums) -> State:
        """See `FeatureModel`; the intercept is the mean, as prepared inputs are centred."""
        del settings
        outcome, projection_PQ = sums.outcome, state["projection"]
        assert isinstance(outcome, OutcomeSums)
        covariance_QQ = projection_PQ.T @ sums.covariance @ projection_PQ
        slopes_Q = self.slopes(covariance_QQ, projection_PQ.T @ outcome.covariance_P, sums.num_cases)
        return {"coefficients": np.append(slopes_Q, outcome.mean)[None], "phase": scalar(Phase.DONE)}

    def values(self, state: State, prepared_NQ: Floats) -> Floats:
        """See `RegressionModel`."""
        slopes_Q, intercept = state["coefficients"][0, :-1], state["coefficients"][0, -1]
        values_N: Floats = prepared_NQ @ slopes_Q + intercept
        return values_N

    def per_unit(self, state: State) -> Floats | None:
        """See `RegressionModel`."""
        slopes_P: Floats = state["projection"] @ state["coefficients"][0, :-1]
        return slopes_P


class StandardisedRegression(RegressionModel):
    """Learns the number less its mean, in standard deviations: of all sites' training cases, from the first sums."""

    @abstractmethod
    def standard_values(self, state: State, prepared_NQ: Floats) -> Floats:
        """The same, N, from a state after the first sums."""

    def after_first_sums(self, settings: Settings, state: State, sums: Sums) -> State:
        """See `FeatureModel`; `outcome` is mean and standard deviation, 1 of a constant."""
        outcome = sums.outcome
        assert isinstance(outcome, OutcomeSums)
        deviation = np.sqrt(outcome.variance) if outcome.variance > 0 else 1.0
        after = super().after_first_sums(settings, state, sums)
        return after | {"outcome": np.array([outcome.mean, deviation])}

    def standardised(self, state: State, values_N: Floats) -> Floats:
        """Numbers as they are learned."""
        mean, deviation = state["outcome"]
        standard_N: Floats = (values_N - mean) / deviation
        return standard_N

    def values(self, state: State, prepared_NQ: Floats) -> Floats:
        """See `RegressionModel`."""
        mean, deviation = state["outcome"]
        values_N: Floats = mean + deviation * self.standard_values(state, prepared_NQ)
        return values_N
