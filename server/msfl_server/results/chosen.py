"""Which round's model is handed out, where that is the best one by a metric, and what a person is told of it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from msfl_common.metrics.classification import class_metrics
from msfl_common.metrics.registry import ALL_METRICS
from msfl_common.system.words import counted

FEW_PATIENTS = 20  # with so many, half of the interval of a share of .8 is still .17


class Chosen(BaseModel):
    """The model that is handed out, of the best round on validation patients."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    by: str = Field(description="the metric, as in the study's `validation.best_by`")
    round: int | None = Field(
        ge=1, description="the round; null where no site told the metric: then it is the last one"
    )
    value: float | None = Field(description="the metric in that round: the best of many, and so too good by chance")
    num_patients: int | None = Field(
        ge=0, description="validation patients behind it, of the smallest group; null where not told"
    )
    ended_early: bool = Field(description="whether the rounds ended as so many validations brought no better one")
    patience: int | None = Field(ge=1, description="after how many validations they end; null: they do not")

    def in_words(self, num_rounds: int, split: str) -> str:
        """Which one it is, how it was chosen, and what that says of the figures beside it.

        Args:
            num_rounds: rounds that ran.
            split: the patients whose figures are shown.
        """
        title = ALL_METRICS[self.by].title
        if self.round is None or self.value is None:
            return (
                f"No site told {title}, by which the best round was to be chosen: the last one's model is handed out."
            )
        told = (
            f"The model handed out is of round {self.round} of {num_rounds}, the best on validation patients by {title}"
        )
        told += f" ({self.value:.3g})"
        if self.round < num_rounds:
            told += ", beside it `last-model` of the last round"
        if self.ended_early:
            told += f"; rounds ended after {counted(self.patience or 0, 'validation')} without a better one"
        told += (
            ". Figures here are of test patients, who chose nothing."
            if split == "test"
            else ". Figures here are of the patients that chose it, and so too good (optimistic)."
        )
        if self.num_patients is not None and self.num_patients < FEW_PATIENTS:
            of_class = " of the smaller class" if self.by in class_metrics() else ""
            told += f" Only {counted(self.num_patients, 'patient')}{of_class} chose: chance had a large part in it."
        return told
