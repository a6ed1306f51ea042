"""The part of `study.yaml` that says how the shared model is measured, and which round's is handed out."""

from __future__ import annotations

from pydantic import Field

from msfl_common.config.base import Frozen


class Validation(Frozen):
    """How the shared model is measured at the sites."""

    fraction: float = Field(0.25, gt=0, lt=1, description="share of a site's patients kept out of training")
    every_rounds: int = Field(1, ge=1, description="rounds between two validations; the last round is always validated")
    window_overlap: float = Field(0.25, ge=0, le=0.9, description="overlap of sliding windows, share of the window")
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
