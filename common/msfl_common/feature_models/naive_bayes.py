"""Gaussian naive Bayes from the first sums: exact."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from msfl_common.feature_models.first_sums import Sums
from msfl_common.feature_models.model import FeatureModel
from msfl_common.feature_models.scores import joint_probabilities
from msfl_common.feature_models.settings import Settings
from msfl_common.feature_models.state import Floats, Phase, State, scalar

_SMOOTHING = 1e-9  # GaussianNB's var_smoothing


class NaiveBayes(FeatureModel):
    """Exact from sums: each class's count, mean and covariance."""

    kind: Literal["naive-bayes"] = Field(description="which model")

    can_be_solved: ClassVar[bool] = False
    sums_suffice: ClassVar[bool] = True
    num_rounds_needed: ClassVar[int | None] = 1
    above_zero: ClassVar[frozenset[str]] = frozenset({"spread", "class_variances"})

    def num_scatters(self, settings: Settings) -> int:
        """See `FeatureModel`: components of a class vary as the class does."""
        if settings.preparation.reduction == "pca":
            return len(settings.outcome.classes)
        return super().num_scatters(settings)

    def first_arrays(self, settings: Settings, num_prepared: int, seed: int) -> State:
        """See `FeatureModel`."""
        del seed
        shape = len(settings.outcome.classes), num_prepared
        return {"class_means": np.zeros(shape), "class_variances": np.ones(shape)}

    def after_first_sums(self, settings: Settings, state: State, sums: Sums) -> State:
        """As GaussianNB, the largest variance times 1e-9 added to each."""
        del settings
        projection_PQ = state["projection"]
        means_KQ = sums.between_KP @ projection_PQ
        if sums.scatter_CPP is None:
            variances_KQ = sums.squares_KP @ projection_PQ**2
        else:
            variances_KQ = np.einsum("pq,kpr,rq->kq", projection_PQ, sums.scatter_CPP, projection_PQ)
        smoothing = _SMOOTHING * float(sums.variance_through(projection_PQ).max())
        variances_KQ = np.maximum(variances_KQ / sums.counts_K[:, None] + smoothing, 1e-300)
        return {"class_means": means_KQ, "class_variances": variances_KQ, "phase": scalar(Phase.DONE)}

    def probabilities(self, state: State, prepared_NQ: Floats) -> Floats:
        """See `FeatureModel`: log of each class's share and normal density, through softmax."""
        means_K1Q, variances_K1Q = state["class_means"][:, None], state["class_variances"][:, None]
        exponents_KN = -0.5 * ((prepared_NQ - means_K1Q) ** 2 / variances_K1Q + np.log(variances_K1Q)).sum(axis=2)
        return joint_probabilities(exponents_KN.T + np.log(state["counts"] / state["counts"].sum()))
