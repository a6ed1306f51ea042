"""What `summary.json` says of a regression beside its metrics: what is predicted, and how far predictions are off."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from msfl_common.config.base import Name
from msfl_common.config.classification import Split
from msfl_common.config.regression import NumericOutcome, Regression
from msfl_common.feature_models import Phase, State, phase_of
from msfl_common.feature_models.regression import RegressionModel
from msfl_common.messages.validation_metrics import ValidationMetrics
from msfl_common.metrics.prediction_error import PredictionError, prediction_error
from msfl_server.results.training_inputs import Characteristics, TrainingInputs, spread_of


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Slope(_Frozen):
    """What an input adds to the predicted number."""

    input: str = Field(description="name of the input")
    per_unit: float = Field(description="change of the number with one unit of the input")
    per_sd: float | None = Field(description="change with a standard deviation over all training cases; null: unknown")
    is_used: bool = Field(description="false where the selection of features, or the model, left the input out")


class NumbersAtSite(_Frozen):
    """A site's cases, as its sums tell of them."""

    num_cases: int = Field(ge=1, description="cases measured")
    observed: tuple[float, float] = Field(description="mean and standard deviation of the observed numbers")
    predicted: tuple[float, float] = Field(description="mean and standard deviation of the predicted numbers")
    residual_mean: float = Field(description="mean of observed less predicted numbers")
    residual_sd: float = Field(ge=0, description="standard deviation of observed less predicted numbers")
    line: tuple[float, float] | None = Field(
        description="intercept and slope of a line through observed over predicted numbers; null: predictions are one"
    )


class RegressionSummary(_Frozen):
    """The final model's numbers, measured at the sites."""

    outcome: str = Field(description="what is predicted: a column, or an endpoint with its settings")
    unit: str = Field(description="unit of the number")
    range: tuple[float, float] = Field(description="lowest and highest number possible")
    split: Split = Field(description="which patients: test (used for nothing else) or validation")
    sites: dict[Name, NumbersAtSite] = Field(description="site by site; under masks all together")
    together: NumbersAtSite | None = Field(description="all sites' cases together; null where no site told")
    prediction_error: PredictionError | None = Field(
        description="of validation and test patients together: what intervals of predictions follow from"
    )
    inputs: tuple[str, ...] = Field(description="inputs of the model, in order")
    characteristics: tuple[Characteristics, ...] = Field(
        description="inputs, and last the outcome, of the training cases, as the sites' first sums tell of them"
    )
    coefficients: tuple[Slope, ...] = Field(description="of a linear model: what each input adds")


def summarise_regression(
    settings: Regression,
    measured: Mapping[str, ValidationMetrics],
    held_out: tuple[Mapping[str, ValidationMetrics], ...],
    split: Split,
    characteristics: tuple[Characteristics, ...],
    coefficients: tuple[Slope, ...],
) -> RegressionSummary:
    """The section of a run.

    Args:
        settings: what the study predicts.
        measured: site to what it told of the patients that figures are of.
        held_out: the same, of each split that the model was not trained on.
        split: which patients the figures are of.
        characteristics: of the training cases.
        coefficients: of a linear model.
    """
    outcome: NumericOutcome = settings.outcome
    told = {site: one.moments for site, one in sorted(measured.items()) if one.moments is not None}
    return RegressionSummary(
        outcome=outcome.in_words,
        unit=outcome.unit,
        range=outcome.range,
        split=split,
        sites={site: _at_site(moments_M) for site, moments_M in told.items()},
        together=_at_site(np.sum([*told.values()], axis=0)) if told else None,
        prediction_error=prediction_error_of(*held_out),
        inputs=settings.inputs,
        characteristics=characteristics,
        coefficients=coefficients,
    )


def prediction_error_of(*measured: Mapping[str, ValidationMetrics]) -> PredictionError | None:
    """Of all patients that a model was not trained on; None where no site told of any.

    Args:
        measured: site to what it told, for each such part of the patients.
    """
    metrics = [one for part in measured for one in part.values()]
    moments = [one.moments for one in metrics if one.moments is not None]
    if not moments:
        return None
    patients = sum(one.estimates["mae"].num_patients or 0 for one in metrics if "mae" in one.estimates)
    return prediction_error(np.sum(moments, axis=0), patients)


def slopes_of(settings: Regression, state: State, training: Mapping[str, TrainingInputs]) -> tuple[Slope, ...]:
    """Of each input, in its own unit; empty of a model that is not linear, or that has not been trained."""
    if not isinstance(settings.model, RegressionModel) or phase_of(state) is Phase.PREPARE:
        return ()
    if (slopes_P := settings.model.per_unit(state)) is None:
        return ()
    spread = spread_of(training.values())
    return tuple(
        Slope(
            input=name,
            per_unit=float(slope),
            per_sd=None if spread is None or np.isnan(spread.sd_P[place]) else float(slope * spread.sd_P[place]),
            is_used=bool(slope),
        )
        for place, (name, slope) in enumerate(zip(settings.inputs, slopes_P, strict=True))
    )


def _at_site(moments_M: NDArray[np.float64]) -> NumbersAtSite:
    cases, observed, predicted, squares, products, predicted_squares, _ = map(float, moments_M)
    mean, predicted_mean = observed / cases, predicted / cases
    variance = max(squares / cases - mean**2, 0.0)
    predicted_variance = max(predicted_squares / cases - predicted_mean**2, 0.0)
    covariance = products / cases - mean * predicted_mean
    residual_variance = max(variance - 2 * covariance + predicted_variance, 0.0)
    slope = (
        covariance / predicted_variance if predicted_variance > 1e-12 * max(predicted_squares / cases, 1e-300) else None
    )
    return NumbersAtSite(
        num_cases=int(cases),
        observed=(mean, variance**0.5),
        predicted=(predicted_mean, predicted_variance**0.5),
        residual_mean=mean - predicted_mean,
        residual_sd=residual_variance**0.5,
        line=None if slope is None else (mean - slope * predicted_mean, slope),
    )
