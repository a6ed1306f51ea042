"""The part of `study.yaml` that says how the shared model is measured, and which round's is handed out."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from msfl_common.config.base import Frozen


class ValidationFold(Frozen):
    """One fold of a segmentation's cross-validation: a part of every site's patients validates, the others train."""

    number: int = Field(ge=1, description="which of the parts validates, from 1")
    of: int = Field(ge=2, le=50, description="parts that each site's patients are dealt into")

    @model_validator(mode="after")
    def _is_one_of_them(self) -> Self:
        if self.number > self.of:
            raise ValueError(
                f"expected a number from 1 to {self.of}, as there are {self.of} folds; found {self.number}"
            )
        return self


class Validation(Frozen):
    """How the shared model is measured at the sites."""

    fraction: float = Field(0.25, gt=0, lt=1, description="share of a site's patients kept out of training")
    fold: ValidationFold | None = Field(
        None,
        description="of a segmentation by itself: validate on a fold in place of `fraction`; `msfl-server "
        "cross-validate` runs all of them",
        exclude_if=lambda value: value is None,
    )
    every_rounds: int = Field(1, ge=1, description="rounds between two validations; the last round is always validated")
    window_overlap: float = Field(0.25, ge=0, le=0.9, description="overlap of sliding windows, share of the window")
    mirroring: bool = Field(
        True,
        description="average what the network says of an image and of its mirror images along "
        "`training.augmentation.flip_axes`, here and in `predict`: 2, 4 or 8 times the time of one",
        exclude_if=lambda value: value,
    )
    bootstrap_samples: int = Field(1000, ge=100, le=100_000, description="without effect: intervals need no resamples")
    best_by: str | None = Field(
        None,
        description="metric by which the model of the best round is handed out, such as dsc or auroc: measured on the "
        "validation patients, and so too good there; in a study that segments before it classifies, of the stage that "
        "has it. null: the model of the last round",
        exclude_if=lambda value: value is None,
    )
    patience: int | None = Field(
        None,
        ge=1,
        description="with `best_by`: the rounds end after so many validations without a better one; null: they go on",
        exclude_if=lambda value: value is None,
    )
