"""The part of `study.yaml` that says how the shared model is measured, and which round's is handed out."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from msfl_common.config.base import Frozen
from msfl_common.config.folds import Fold


class Validation(Frozen):
    """How the shared model is measured at the sites."""

    fraction: float = Field(
        0.25, gt=0, lt=1, description="share of a site's patients kept out of training, to measure each round's model"
    )
    test_fraction: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="of a segmentation by itself: share of a site's patients kept for the final figures, and for "
        "nothing else. 0: none, and the final figures are of the patients who measured each round's model",
        exclude_if=lambda value: not value,
    )
    min_test_patients: int | None = Field(
        None,
        ge=1,
        description="with `test_fraction`: a site where it comes to fewer patients keeps none, and they train, as no "
        "figure of them could be told; null: the study's `min_patients`",
        exclude_if=lambda value: value is None,
    )
    fold: Fold | None = Field(
        None,
        description="of a segmentation by itself: test on a fold in place of `test_fraction`, or on all patients of a "
        "site; `msfl-server cross-validate` runs all of them",
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

    @model_validator(mode="after")
    def _leaves_some_to_train(self) -> Self:
        if self.fraction + self.test_fraction >= 1:
            raise ValueError(
                f"test_fraction {self.test_fraction:g} and fraction {self.fraction:g} leave nobody to train on; "
                "lower one of them"
            )
        return self

    @property
    def keeps_test(self) -> bool:
        """Whether patients of a segmentation are kept for the final figures alone."""
        return self.fold is not None or self.test_fraction > 0
