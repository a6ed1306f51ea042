"""The part of `study.yaml` that predicts a number: which one, in what unit, from what, and by which model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, Union

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, field_validator, model_validator

from msfl_common.config.base import Task
from msfl_common.config.classification import MODEL_KINDS, Classification, Column, Outcome
from msfl_common.config.clinical_values import Bound, Unit
from msfl_common.feature_models.model import FeatureModel
from msfl_common.feature_models.registry import REGRESSION_MODELS

_ENDPOINT_RANGES = {"edss": (0.0, 10.0), "edss-change": (-10.0, 10.0)}

if TYPE_CHECKING:
    AnyRegressionModel = FeatureModel
else:
    AnyRegressionModel = Union[tuple(REGRESSION_MODELS.values())]  # noqa: UP007


class NumericOutcome(Outcome):
    """What is predicted: a number in a column of the participants' table, or one computed from follow-up."""

    column: Column | None = Field(
        None, description="column of participants.tsv or sessions.tsv that holds the number; n/a where it is not known"
    )
    endpoint: Literal["edss", "edss-change"] | None = Field(  # type: ignore[assignment]
        None,
        description="edss: the EDSS at the visit that is nearest to the horizon, within a tenth of it; edss-change: "
        "that, less the EDSS at the visit that is predicted from",
    )
    unit: Unit = Field(description="unit of the number, such as points, years or % a year")
    range: tuple[Bound, Bound] = Field(
        description="lowest and highest number possible; a table that holds another is refused, and no prediction goes "
        "beyond. From what is known of it, never from the patients at hand: noise is drawn for it"
    )
    horizon_years: float = Field(1.0, gt=0, le=30, description="an endpoint is taken so many years later")

    # What classes and events alone have.
    classes: ClassVar[tuple[str, ...]] = ()  # type: ignore[misc]
    confirmed_weeks: ClassVar[float] = 0.0  # type: ignore[misc]
    baseline: ClassVar[Literal["fixed"]] = "fixed"  # type: ignore[misc]
    pira: ClassVar[bool] = False  # type: ignore[misc]

    @field_validator("classes", mode="before", check_fields=False)
    @classmethod
    def _classes_are_texts(cls, value: Any) -> Any:
        return value

    def possible(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Predicted numbers, none of them beyond the range."""
        return np.clip(values, *self.range)

    @property
    def in_words(self) -> str:
        """What is predicted, with every setting that it follows from."""
        if self.endpoint is None:
            return f"{self.column}, {self.unit}"
        what = "EDSS" if self.endpoint == "edss" else "change of the EDSS"
        rules = [f"{what} after {self.horizon_years:g} year{'s' * (self.horizon_years != 1)}"]
        rules += [f"EDSS within {self.relapse_days:g} days of a relapse passed over"] if self.relapse_days else []
        return ", ".join([*rules, self.unit])

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.column is None) == (self.endpoint is None):
            raise ValueError("expected either `column` or `endpoint`")
        low, high = self.range
        if not low < high:
            raise ValueError(f"range: expected the lowest number and then a higher one, found {low:g} and {high:g}")
        if self.endpoint is not None and self.range != _ENDPOINT_RANGES[self.endpoint]:
            least, most = _ENDPOINT_RANGES[self.endpoint]
            raise ValueError(f"range: of {self.endpoint} is [{least:g}, {most:g}], found [{low:g}, {high:g}]")
        return self


class Regression(Classification):
    """Predict a number of a patient from features of images or clinical values."""

    outcome: NumericOutcome
    model: AnyRegressionModel = Field(discriminator="kind", description="the model, by its `kind`")

    @field_validator("model", mode="before")
    @classmethod
    def _of_numbers(cls, value: Any) -> Any:
        kind = value.get("kind") if isinstance(value, dict) else None
        if kind in MODEL_KINDS and kind not in REGRESSION_MODELS:
            raise ValueError(f"{kind} tells classes apart; of a number expected one of {', '.join(REGRESSION_MODELS)}")
        return value


def check_sections(task: Task, classification: BaseModel | None, regression: Regression | None) -> None:
    """Refuse a section of another task than the study's, and a task without its own.

    Raises:
        ValueError: names the section.
    """
    for name, section in (("classification", classification), ("regression", regression)):
        is_of_it = section is not None and not (name == "classification" and regression is section)
        if (task == name) != is_of_it:
            raise ValueError(f"expected a section `{name}` with the task {name}, and with no other")
