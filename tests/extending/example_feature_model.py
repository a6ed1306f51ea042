"""Nearest shrunken centroids (Tibshirani et al. 2002), with probabilities that fall off with the distance.

The first sums give the centroids; one round more asks how far each class's cases lie from its own on average.

Legend: see the package.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from msfl_common.errors import UpdateError
from msfl_common.feature_models.first_sums import Sums
from msfl_common.feature_models.model import Answer, FeatureModel
from msfl_common.feature_models.scores import joint_probabilities
from msfl_common.feature_models.settings import Settings
from msfl_common.feature_models.state import Floats, Phase, State, scalar

_LEAST = 1e-9


class ShrunkenCentroids(FeatureModel):
    """The class whose centroid is nearest; inputs in which classes hardly differ count for nothing."""

    kind: Literal["shrunken-centroids"] = Field(description="which model")
    shrinkage: float = Field(0.1, ge=0, description="what is taken off a centroid, in deviations of each input")

    can_be_solved: ClassVar[bool] = False  # one answer more than the first sums, of two numbers for each class
    most_fits: ClassVar[int | None] = 1
    num_rounds_needed: ClassVar[int | None] = 2
    moving: ClassVar[tuple[str, ...]] = ("fall_off",)  # the centroids stay as the first sums gave them
    above_zero: ClassVar[frozenset[str]] = frozenset({"spread", "fall_off"})

    def first_arrays(self, settings: Settings, num_prepared: int, seed: int) -> State:
        """See `FeatureModel`."""
        del seed  # nothing is drawn
        num_classes = len(settings.outcome.classes)
        return {"centroids": np.zeros((num_classes, num_prepared)), "fall_off": np.ones(num_classes)}

    def after_first_sums(self, settings: Settings, state: State, sums: Sums) -> State:
        """See `FeatureModel`: each class's mean, off that of all, drawn in."""
        del settings
        off_KQ = sums.between_KP @ state["projection"] / state["spread"]
        drawn_in_KQ = np.sign(off_KQ) * np.maximum(np.abs(off_KQ) - self.shrinkage, 0.0)
        return {"centroids": drawn_in_KQ * state["spread"], "phase": scalar(Phase.FIT)}

    def answer_like(self, state: State) -> State:
        """See `FeatureModel`: of each class, cases and their distances from its centroid, summed."""
        num_classes = len(state["counts"])
        return {"cases": np.zeros(num_classes), "distances": np.zeros(num_classes)}

    def check_answer(self, state: State, answer: State, num_cases: int) -> None:
        """See `FeatureModel`."""
        cases_K, distances_K = answer["cases"], answer["distances"]
        if (cases_K < 0).any() or (cases_K % 1).any() or cases_K.sum() > num_cases:
            raise UpdateError(f"cases: expected whole numbers that add up to at most {num_cases}")
        if (distances_K < 0).any() or distances_K[cases_K == 0].any():
            raise UpdateError("distances: expected none below 0, and 0 of a class without a case")

    def next_state(self, state: State, answers: Sequence[Answer]) -> State:
        """See `FeatureModel`: the likeliest fall-off of a density exp(-distance / fall-off)."""
        cases_K = np.sum([one.arrays["cases"] for one in answers], axis=0)
        distances_K = np.sum([one.arrays["distances"] for one in answers], axis=0)
        fall_off_K = distances_K / np.maximum(cases_K, 1) / state["centroids"].shape[1]
        return state | {"fall_off": np.maximum(fall_off_K, _LEAST), "phase": scalar(Phase.DONE)}

    def probabilities(self, state: State, prepared_NQ: Floats) -> Floats:
        """See `FeatureModel`."""
        shares_K, fall_off_K = state["counts"] / state["counts"].sum(), state["fall_off"]
        densities_NK = -self.distances(state, prepared_NQ) / fall_off_K - prepared_NQ.shape[1] * np.log(fall_off_K)
        return joint_probabilities(densities_NK + np.log(shares_K))

    def distances(self, state: State, prepared_NQ: Floats) -> Floats:
        """How far each case is from each centroid, N x K."""
        distances_NK: Floats = np.linalg.norm(prepared_NQ[:, None] - state["centroids"], axis=2)
        return distances_NK
