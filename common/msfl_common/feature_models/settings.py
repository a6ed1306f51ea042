"""What a model of features is told of a study: inputs, classes or a number, and the steps between the two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field


class Frozen(BaseModel):
    """Settings in a file: unknown keys are refused, nothing can be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Preparation(Frozen):
    """Steps between features and model, fitted on training cases: from sums over all sites, never from rows."""

    subject_scaling: Literal["none", "standard", "minmax"] = Field(
        "none",
        description="scaling of a case over its own features of images, never over clinical values; needs nothing of "
        "other cases",
    )
    group_by: str | None = Field(
        None,
        min_length=1,
        max_length=16,
        description="with `subject_scaling`: within groups of features, whose names are alike up to this text, as with "
        "`_` those of t1w_gm_median and t1w_wm_median; null: over all features",
        exclude_if=lambda value: value is None,
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
    def features(self) -> tuple[str, ...]:
        """Those of the inputs that are features of images, which come first."""

    @property
    def outcome(self) -> Predicted:
        """What is predicted."""

    @property
    def preparation(self) -> Preparation:
        """What lies between inputs and model."""

    @property
    def model(self) -> object:
        """The model's own settings: a `FeatureModel`, if it is a model of features."""


def subject_groups(features: Sequence[str], group_by: str | None) -> dict[str, list[int]]:
    """The places of features by the group that a case is scaled within: names alike up to a text, or all."""
    groups: dict[str, list[int]] = {}
    for place, name in enumerate(features):
        groups.setdefault(name.split(group_by, 1)[0] if group_by else "", []).append(place)
    return groups


def check_subject_groups(features: Sequence[str], preparation: Preparation) -> None:
    """Refuse to scale a feature over itself alone, of which nothing would be left.

    Raises:
        ValueError: names it, and says what to do.
    """
    if preparation.subject_scaling == "none":
        return
    groups = subject_groups(features, preparation.group_by)
    if alone := [features[places[0]] for places in groups.values() if len(places) == 1]:
        raise ValueError(
            f"preparation.subject_scaling: {', '.join(alone)}: is alone in its group, and would be 0 in every case; "
            "name more features of its group, set another preparation.group_by, or leave the scaling out"
        )


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
