"""What of each kind of message is added up over sites: updates, sums of a harmonization, and metrics.

Plain and masked studies add up the same vectors, so that both come to the same bits.

Legend: K classes, P inputs or features, Q columns of the covariates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from msfl_common.config.classification import DeepModel
from msfl_common.config.study import Harmonization, StudyConfig
from msfl_common.errors import UpdateError
from msfl_common.feature_models import Phase, Settings, contribution_like, model_of, phase_of
from msfl_common.feature_models.raw_sums import about_means, about_zero
from msfl_common.harmonization import Floats, Moments, Residuals, column_names
from msfl_common.messages.metrics_layout import metrics_layout as metrics_layout
from msfl_common.messages.network_layout import NUM_FIGURES, SECONDS_AT, mean_figures
from msfl_common.messages.network_layout import network_layout as network_layout
from msfl_common.messages.records import ModelUpdate
from msfl_common.models.weights import Weights, expect_finite
from msfl_common.secure_aggregation.layout import POOLED as POOLED
from msfl_common.secure_aggregation.layout import Layout as Layout
from msfl_common.secure_aggregation.layout import sum_of as sum_of
from msfl_common.secure_aggregation.ring import SUMS, Ring, Words
from msfl_common.strategies.fedavg import FedAvg
from msfl_common.strategies.sets import flat_name
from msfl_common.system.checked_arrays import check_scatter
from msfl_common.system.checked_numbers import whole_number

_SYMMETRIC = ("covariance", "curvature", "scatter")


def update_layout(study: StudyConfig, request: Weights) -> Layout[ModelUpdate]:
    """Model updates.

    Args:
        study: of the stage.
        request: the arrays of the request that they answer.

    Raises:
        UpdateError: updates of this model are no sums.
    """
    settings = study.classification
    if settings is not None and not isinstance(settings.model, DeepModel):
        return feature_layout(settings, request)
    strategy = study.strategy or FedAvg()
    sent = tuple(flat_name(of, "") for of in strategy.sends)
    before = {name: value for name, value in request.items() if not name.startswith(sent)} if sent else request
    return network_layout(strategy, before)


def feature_layout(settings: Settings, state: Weights) -> Layout[ModelUpdate]:
    """Answers to a state of a model of features.

    Raises:
        UpdateError: they are no sums.
    """
    model, like = model_of(settings), contribution_like(settings, state)
    if phase_of(state) is Phase.PREPARE:
        return _FirstSumsLayout(like)
    if not model.sums_suffice:
        raise UpdateError(f"{model.kind}: the sites' answers are no sums")
    return _FitLayout(like, before={name: state[name] for name in like} if model.averages else None)


def moments_layout(settings: Harmonization) -> Layout[Moments]:
    """First sums of a harmonization."""
    return _MomentsLayout(len(column_names(settings)), len(settings.feature_names))


def residuals_layout(settings: Harmonization) -> Layout[Residuals]:
    """Second sums of a harmonization, with the scanners behind them."""
    return _ResidualsLayout(len(settings.feature_names))


@dataclass(frozen=True)
class _FeaturesLayout(Layout[ModelUpdate]):
    """A model of features; `like` says names and shapes of an answer."""

    like: Weights
    ring: Ring = SUMS
    seconds_at: ClassVar[int | None] = SECONDS_AT

    @property
    def length(self) -> int:  # type: ignore[override]
        """See `Layout`."""
        return _num_values(self.like) + NUM_FIGURES


@dataclass(frozen=True)
class _FitLayout(_FeaturesLayout):
    """After the first sums: sums as they are; of layers, cases times the way from those `before`."""

    before: Weights | None = None

    def encode(self, value: ModelUpdate, num_sites: int) -> Words:
        """See `Layout`."""
        arrays = {name: value.weights[name] for name in self.like}
        if self.before is not None:
            arrays = {name: value.num_cases * (array - self.before[name]) for name, array in arrays.items()}
        return self.ring.encode(np.concatenate([_flat(arrays), _said(value)]), num_sites)

    def decode(self, total: Words) -> ModelUpdate:
        """See `Layout`."""
        values = self.ring.decode(total)
        num_cases, loss, seconds = mean_figures(values[-NUM_FIGURES:])
        weights: Weights = _shaped(values, self.like)
        if self.before is not None:
            weights = {name: self.before[name] + array / num_cases for name, array in weights.items()}
        expect_finite(weights)
        return ModelUpdate(weights, num_cases, loss, seconds)


@dataclass(frozen=True)
class _FirstSumsLayout(_FeaturesLayout):
    """First sums, about 0."""

    def encode(self, value: ModelUpdate, num_sites: int) -> Words:
        """See `Layout`."""
        arrays = {name: self._whole(value.weights[name]) for name in self.like}
        numbers = [*_flat(about_zero(arrays, self._one)), *self._whole(np.array(_said(value)))]
        return self.ring.of_whole(numbers, num_sites)

    def decode(self, total: Words) -> ModelUpdate:
        """See `Layout`."""
        whole = np.array(self.ring.to_whole(total), dtype=object)
        num_cases, loss, seconds = mean_figures(self._values(whole[-NUM_FIGURES:]))
        sums = about_means(_shaped(whole, self.like), self._one)
        return ModelUpdate({name: self._values(value) for name, value in sums.items()}, num_cases, loss, seconds)

    @property
    def _one(self) -> int:
        return 1 << self.ring.fraction_bits

    def _whole(self, value: Floats) -> NDArray[Any]:
        return np.array([self.ring.whole(one) for one in value.reshape(-1).tolist()], object).reshape(value.shape)

    def _values(self, whole: NDArray[Any]) -> Floats:
        return np.asarray(whole / self._one, np.float64)


@dataclass(frozen=True)
class _MomentsLayout(Layout[Moments]):
    """First sums of a harmonization."""

    num_columns: int
    num_features: int
    ring: Ring = SUMS

    @property
    def length(self) -> int:  # type: ignore[override]
        """See `Layout`."""
        return _num_values(self._like) + 2

    def encode(self, value: Moments, num_sites: int) -> Words:
        """See `Layout`."""
        counts = [value.num_cases, value.num_scanners]
        return self.ring.encode(np.concatenate([_flat(value.arrays), counts]), num_sites)

    def decode(self, total: Words) -> Moments:
        """See `Layout`."""
        values = self.ring.decode(total)
        num_cases, num_scanners = _counts(values)
        arrays = _shaped(values, self._like)
        check_scatter("covariance", arrays["covariance"])
        return Moments(num_cases, num_scanners, arrays["covariance"], arrays["cross"])

    @property
    def _like(self) -> Weights:
        covariance = np.zeros((self.num_columns, self.num_columns))
        return {"covariance": covariance, "cross": np.zeros((self.num_columns, self.num_features))}


@dataclass(frozen=True)
class _ResidualsLayout(Layout[Residuals]):
    num_features: int
    ring: Ring = SUMS

    @property
    def length(self) -> int:  # type: ignore[override]
        """See `Layout`."""
        return 2 * self.num_features + 2

    def encode(self, value: Residuals, num_sites: int) -> Words:
        """See `Layout`."""
        counts = [value.num_cases, value.num_scanners]
        return self.ring.encode(np.concatenate([value.intercepts_P, value.squares_P, counts]), num_sites)

    def decode(self, total: Words) -> Residuals:
        """See `Layout`."""
        values = self.ring.decode(total)
        num_cases, num_scanners = _counts(values)
        intercepts_P, squares_P = values[: self.num_features], values[self.num_features : -2]
        if (squares_P < 0).any():
            raise UpdateError("squares: expected no negative sum of squares")
        return Residuals(num_cases, intercepts_P, squares_P, num_scanners)


def _counts(values: Floats) -> tuple[int, int]:
    """Cases and scanners, which come last."""
    num_cases = whole_number("cases", float(values[-2]))
    return num_cases, whole_number("scanners", float(values[-1]), most=num_cases)


def _said(update: ModelUpdate) -> list[float]:
    return [update.num_cases, update.num_cases * update.train_loss, update.seconds, 1]


def _triangle(name: str, like: Floats) -> tuple[NDArray[np.intp], NDArray[np.intp]] | None:
    """Rows and columns of what is told of symmetric matrices; None of other arrays."""
    return np.triu_indices(like.shape[-1]) if name in _SYMMETRIC else None


def _num_values(like: Weights) -> int:
    return int(_flat(like).size)


def _flat(arrays: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """All values one after the other; of symmetric matrices the upper half."""
    triangles = {name: _triangle(name, value) for name, value in arrays.items()}
    return np.concatenate(
        [
            (value if (half := triangles[name]) is None else value[..., half[0], half[1]]).reshape(-1)
            for name, value in arrays.items()
        ]
    )


def _shaped(values: NDArray[Any], like: Weights) -> dict[str, NDArray[Any]]:
    """What `_flat` laid out, which may be followed by others."""
    arrays, start = {}, 0
    for name, one in like.items():
        half = _triangle(name, one)
        size = one.size if half is None else one.size // one.shape[-1] ** 2 * len(half[0])
        part = values[start : start + size]
        if half is None:
            arrays[name] = part.reshape(one.shape)
        else:
            whole = np.empty(one.shape, values.dtype)
            whole[..., half[0], half[1]] = whole[..., half[1], half[0]] = part.reshape(*one.shape[:-2], -1)
            arrays[name] = whole
        start += size
    return arrays
