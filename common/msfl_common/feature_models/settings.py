"""What a model of features is told of a study: inputs, classes or a number, and the steps between the two."""

from __future__ import annotations

from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field


class Frozen(BaseModel):
    """Settings in a file: unknown keys are refused, nothing can be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Preparation(Frozen):
    """Steps between features and model, fitted on training cases: from sums over all sites, never from rows."""

    subject_scaling: Literal["none", "standard", "minmax"] = Field(
        "none", description="scaling of a case over its own features; needs nothing of other cases"
    )
    scaling: Literal["none", "standard"] = Field("standard", description="scaling of a feature over all cases")
    selection: Literal["none", "k-best", "rfe"] = Field(
        "none", description="features kept: k-best by ANOVA's F, rfe by recursive elimination with a linear model"
    )
    num_selected: int = Field(20, ge=1, description="features kept by a selection")
    reduction: Literal["none", "pca"] = Field("none", description="principal components in place of features")
    num_components: int = Field(10, ge=1, description="principal components kept")


class Predicted(Protocol):
    """What is predicted."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, of two the last counts; none of a number."""


class Settings(Protocol):
    """The section `classification` of a study, as its model sees it."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs, in their order."""

    @property
    def outcome(self) -> Predicted:
        """What is predicted."""

    @property
    def preparation(self) -> Preparation:
        """What lies between inputs and model."""

    @property
    def model(self) -> object:
        """The model's own settings: a `FeatureModel`, if it is a model of features."""


def is_numeric(settings: Settings) -> bool:
    """Whether a number is predicted, not a class."""
    return not settings.outcome.classes


def num_groups(settings: Settings) -> int:
    """K: groups of cases that the first sums keep apart; those of a number are of all cases at once."""
    return max(1, len(settings.outcome.classes))


def num_columns(settings: Settings) -> int:
    """Columns of the first sums: the inputs and, last, a number that is predicted."""
    return len(settings.inputs) + is_numeric(settings)


def num_prepared_inputs(settings: Settings) -> int:
    """Q: inputs that the model sees after selection and reduction."""
    preparation, num_inputs = settings.preparation, len(settings.inputs)
    num = num_inputs if preparation.selection == "none" else min(preparation.num_selected, num_inputs)
    return num if preparation.reduction == "none" else min(preparation.num_components, num)
