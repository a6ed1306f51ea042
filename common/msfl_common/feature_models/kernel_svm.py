"""Support vector machines with a kernel: the linear machine's search, on features whose inner products approximate it.

    svm-rbf      exp(-gamma |x - y|^2)
    svm-poly     (gamma x'y + coef0)^degree
    svm-sigmoid  tanh(gamma x'y)

By Nystroem's method (Williams and Seeger, NIPS 2000) a case is described by its kernel with D landmarks. Usually these
are cases; here they are normal deviates as wide as the inputs, drawn from the seed alone, and no case has a part in
them. All three are approximate, and come closer to the kernel with more landmarks; directions between landmarks with
less than a thousandth of the largest eigenvalue are left out, and so are those that make the sigmoid kernel
indefinite. On 12 inputs, random Fourier features and tensor sketches of as many features came less close.

Legend: N cases, Q prepared inputs, D landmarks.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from msfl_common.feature_models.first_sums import Sums
from msfl_common.feature_models.model import FeatureModel
from msfl_common.feature_models.newton import Penalty
from msfl_common.feature_models.searched import Searched, first_search
from msfl_common.feature_models.settings import Settings
from msfl_common.feature_models.state import MAX_STEPS, Floats, State
from msfl_common.system.seeds import derive_seed

_MOST_CURVATURE = 16_000_000  # second derivatives that a site sends: 128 MB
_LEAST_EIGENVALUE = 1e-3  # share of the largest, below which a direction between landmarks is noise


class KernelModel(Searched):
    """A support vector machine on random features that approximate the kernel; an approximation, and said so."""

    inverse_strength: float = Field(1.0, gt=0, description="scikit-learn's C: the smaller, the smaller coefficients")
    num_features: int = Field(200, ge=10, le=2000, description="random features; more approximate the kernel better")
    gamma: float | None = Field(
        None, gt=0, description="the kernel's gamma; null: 1 / (number of prepared inputs times their mean variance)"
    )
    degree: int = Field(3, ge=2, le=5, description="degree of the polynomial kernel")

    is_linear_in_inputs: ClassVar[bool] = False
    can_be_solved: ClassVar[bool] = False
    drawn: ClassVar[tuple[str, ...]] = ("landmarks",)
    is_hinge: ClassVar[bool] = True
    num_rounds_needed: ClassVar[int | None] = 1 + 2 * MAX_STEPS

    @abstractmethod
    def of_products(self, products_ND: Floats, squares_N: Floats, squares_D: Floats) -> Floats:
        """The kernel of N cases with D others, from gamma times their products and gamma times their own squares."""

    def check_settings(self, settings: Settings) -> None:
        """See `FeatureModel`: curvatures that can be sent."""
        num_scores = self.num_scores(settings)
        if num_scores * self.num_features**2 > _MOST_CURVATURE:
            raise ValueError(f"model.num_features: {self.num_features} are too many for {num_scores} classes")

    def unused(self) -> Mapping[str, str]:
        """See `FeatureModel`."""
        return {"degree": "only a polynomial kernel has one"}

    @property
    def held_small(self) -> Penalty:
        """See `Searched`."""
        return Penalty(0.0, 1.0, self.inverse_strength)

    def first_arrays(self, settings: Settings, num_prepared: int, seed: int) -> State:
        """See `FeatureModel`."""
        state = {
            "landmarks": self.first_landmarks(num_prepared, seed),
            "kernel_map": np.zeros((self.num_features, self.num_features)),
        }
        return state | first_search(self.num_scores(settings), self.num_features + 1, with_link=True)

    def after_first_sums(self, settings: Settings, state: State, sums: Sums) -> State:
        """See `FeatureModel`."""
        made = {"kernel_map": self.map_of(state["landmarks"], state["spread"])}
        return made | super().after_first_sums(settings, state, sums)

    def design(self, state: State, prepared_NQ: Floats) -> Floats:
        """See `LinearScores`: a kernel's features, and a 1."""
        inputs_ND = self.features(state["landmarks"], state["kernel_map"], state["spread"], prepared_NQ)
        return np.column_stack([inputs_ND, np.ones(len(inputs_ND))])

    def parts(self, state: State, scaled_P: Floats, number: int) -> Floats:
        """See `FeatureModel`: no linear model of its inputs."""
        return FeatureModel.parts(self, state, scaled_P, number)

    def first_landmarks(self, num_prepared: int, seed: int) -> Floats:
        """Standard normal deviates, D x Q."""
        rng = np.random.default_rng(derive_seed(seed, "landmarks"))
        return rng.normal(size=(self.num_features, num_prepared))

    def map_of(self, landmarks_DQ: Floats, spread_Q: Floats) -> Floats:
        """What makes features of a case's kernel with the landmarks: the inverse root of theirs with each other."""
        wide_DQ = landmarks_DQ * spread_Q
        values_D, vectors_DD = np.linalg.eigh(self._kernel(spread_Q, wide_DQ, wide_DQ))
        counts_D = values_D > _LEAST_EIGENVALUE * values_D[-1]
        inverse_D = np.where(counts_D, 1 / np.sqrt(np.maximum(values_D, 1e-300)), 0.0)
        map_DD: Floats = (vectors_DD * inverse_D) @ vectors_DD.T
        return map_DD

    def features(self, landmarks_DQ: Floats, map_DD: Floats, spread_Q: Floats, prepared_NQ: Floats) -> Floats:
        """The features of N cases, N x D."""
        return self._kernel(spread_Q, prepared_NQ, landmarks_DQ * spread_Q) @ map_DD

    def _kernel(self, spread_Q: Floats, one_NQ: Floats, other_DQ: Floats) -> Floats:
        """The kernel of each with each; gamma is the study's, or else 1 / (Q mean variance), scikit-learn's "scale"."""
        gamma = self.gamma or 1.0 / float((spread_Q**2).sum())
        products_ND: Floats = gamma * one_NQ @ other_DQ.T
        return self.of_products(products_ND, gamma * (one_NQ**2).sum(axis=1), gamma * (other_DQ**2).sum(axis=1))


class SvmRbf(KernelModel):
    """With radial basis functions."""

    kind: Literal["svm-rbf"] = Field(description="which model")

    def of_products(self, products_ND: Floats, squares_N: Floats, squares_D: Floats) -> Floats:
        """See `KernelModel`."""
        squares_ND = squares_N[:, None] + squares_D - 2 * products_ND
        return np.asarray(np.exp(-np.maximum(squares_ND, 0.0)))

    def squares_of_inputs(self, state: State, num_cases: int) -> Floats | None:
        """See `Searched`: a case's kernel with itself is 1, and its features are a projection of that."""
        del state
        return np.full(self.num_features + 1, (1 + 1e-6) * num_cases)


class SvmPoly(KernelModel):
    """With a polynomial."""

    kind: Literal["svm-poly"] = Field(description="which model")
    coef0: float = Field(
        1.0,
        ge=0,
        le=1000,
        description="what is added before the power is taken; 1 lets lower powers in, 0 is scikit-learn's, and so that "
        "of `msfl-server pipelines`",
        exclude_if=lambda value: value == 1,
    )

    def unused(self) -> Mapping[str, str]:
        """See `FeatureModel`."""
        return {}

    @property
    def degree_of_products(self) -> int:
        """See `FeatureModel`."""
        return self.degree

    def of_products(self, products_ND: Floats, squares_N: Floats, squares_D: Floats) -> Floats:
        """See `KernelModel`."""
        del squares_N, squares_D
        return np.asarray((products_ND + self.coef0) ** self.degree)


class SvmSigmoid(KernelModel):
    """With a hyperbolic tangent."""

    kind: Literal["svm-sigmoid"] = Field(description="which model")

    def of_products(self, products_ND: Floats, squares_N: Floats, squares_D: Floats) -> Floats:
        """See `KernelModel`."""
        del squares_N, squares_D
        return np.asarray(np.tanh(products_ND))
