"""What a site found that fine-tuning a finished model brings, read without what trains it."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from msfl_client.personal.record import FEW, Interval, in_words
from msfl_common.errors import ConfigError
from msfl_common.metrics.paired import FEWEST
from msfl_common.system.reading import read_record
from msfl_common.system.words import counted

TUNING = "fine-tuning.json"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Change(_Record):
    """A metric before and after, of the same cases, none of which was trained on."""

    before: Interval
    after: Interval
    difference: Interval = Field(description="after less before")
    num_patients: int
    num_up: int = Field(description="patients in whom it rose")


class Tuning(_Record):
    """What a site measured; it stays there."""

    schema_version: int = 1
    study: str
    site: str
    weights_sha256: str = Field(description="of the model that was trained on from")
    num_patients: int = Field(description="labelled, on all of whom the model that is kept was trained")
    num_cases: int
    num_folds: int = Field(description="into which they were dealt to be measured; 0: nobody could be held out")
    steps: int
    frozen: tuple[str, ...] = Field(description="layers that were not trained")
    metrics: dict[str, str] = Field(description="their titles")
    changes: dict[str, Change] = Field(description="by metric")
    folder: str = Field(description="the model, to predict with")

    @property
    def sentence(self) -> str:
        """The answer, by the first metric."""
        if not self.num_folds:
            return (
                f"Trained on {counted(self.num_patients, 'patient')}: nobody is left to measure it on, so nothing "
                "shows whether it is better; outline lesions in other scans with both models, and look"
            )
        told = next(iter(self.changes.items()), None)
        if told is None:
            return "No metric is defined in the patients who were held out, so nothing shows whether it is better"
        metric, change = told
        found = f"{self.metrics[metric]} {change.before.mean:.3f} before, {change.after.mean:.3f} after, "
        if change.difference.low is not None:
            return found + in_words(change.difference, "before")
        return (
            f"{found}{change.difference.mean:+.3f}; it rose in {change.num_up} of "
            f"{counted(change.num_patients, 'patient')}; fewer than {FEWEST} say nothing of others"
        )

    @property
    def caution(self) -> str:
        """What keeps the figures from being taken at their word; empty where nothing does."""
        if not self.num_folds:
            return ""
        few = ", which is few: others may say else" if self.num_patients < FEW else ""
        return (
            f"measured on {counted(self.num_patients, 'patient')}{few}; each by a model that was not trained on them "
            f"({counted(self.num_folds, 'fold')}), while the one that is kept was trained on all"
        )


def read_tuning(path: Path) -> Tuning | None:
    """What was measured before; None where there is nothing that can be read."""
    try:
        return read_record(Tuning, path)
    except ConfigError:
        return None
