"""`summary.json`: what a run was, what it measured and what it cost.

It holds aggregates only, and is what the report, the terminal table and other programs read.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from msfl_common.config.base import Name, Task
from msfl_common.config.classification import Split
from msfl_common.errors import ConfigError, InputError, unreadable
from msfl_common.metrics.registry import ALL_METRICS
from msfl_common.models.started_from import StartedFrom
from msfl_common.privacy_accounting import PrivacyPromise
from msfl_common.secure_aggregation.layout import POOLED
from msfl_common.system.files import write_text
from msfl_common.system.reading import parse_record
from msfl_server.results.chosen import Chosen
from msfl_server.results.classification import ClassificationSummary
from msfl_server.results.evaluated import Evaluated
from msfl_server.results.local_baselines import LocalBaselines
from msfl_server.results.metric_summary import MetricSummary as MetricSummary
from msfl_server.results.metric_summary import SiteMetric as SiteMetric
from msfl_server.results.metric_summary import has_enough as has_enough
from msfl_server.results.metric_summary import summarise_metric as summarise_metric
from msfl_server.results.regression import RegressionSummary
from msfl_server.results.update_summary import UpdateSummary as UpdateSummary

SUMMARY_FILE = "summary.json"
SUSPENDED = "SUSPENDED"  # the code of a site that is not asked for some rounds

Code = Annotated[str, Field(pattern=r"^[A-Z][A-Z_]*$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class SiteSummary(_Frozen):
    """A site that took part."""

    name: Name = Field(description="the site's name in the study")
    cases_train: int = Field(ge=0, description="training cases, as the site rounded them")
    cases_val: int = Field(ge=0, description="validation cases, as the site rounded them")


class SiteFailure(_Frozen):
    """A site that did not contribute to a round."""

    site: Name = Field(description="the site's name in the study")
    code: Code = Field(description="why, as a code of capitals and underscores")
    step: Literal["training", "validation", "test"] | None = Field(
        None,
        description="what it did not answer; null where it was not asked, and in runs of earlier versions",
        exclude_if=lambda value: value is None,
    )


class RoundSummary(_Frozen):
    """One round."""

    round: int = Field(ge=1, description="number of the round, from 1")
    train_loss: float | None = Field(description="case-weighted training loss; null when no site trained")
    metrics: dict[str, float] = Field(description="pooled mean of each metric; empty without validation")
    sites_ok: tuple[Name, ...] = Field(description="sites that contributed")
    sites_failed: tuple[SiteFailure, ...] = Field(description="sites that did not, and why")
    seconds: float = Field(ge=0, description="wall-clock time of the round, s")
    set_back_to: int | None = Field(
        None,
        ge=1,
        description="the model came apart in this round, and has the weights of that earlier one again",
        exclude_if=lambda value: value is None,
    )
    is_best: bool = Field(
        False,
        description="by the study's `validation.best_by`, the best model so far",
        exclude_if=lambda value: not value,
    )
    updates: dict[Name, UpdateSummary] = Field(
        default_factory=dict,
        description="each site's update of a network; absent of models of features, and under masks",
        exclude_if=lambda value: not value,
    )
    per_site: dict[str, dict[Name, float]] = Field(
        default_factory=dict, description="mean of each metric at each site; may be left out"
    )

    @property
    def odd(self) -> dict[str, str]:
        """The sites whose update stood out, and why."""
        return {site: update.odd for site, update in self.updates.items() if update.odd is not None}


class Timing(_Frozen):
    """Where the time went, wall clock."""

    total_s: float = Field(ge=0, description="the whole run, s")
    train_s: float = Field(ge=0, description="training and validation steps, s")
    overhead_s: float = Field(ge=0, description="time in rounds spent on neither, s")


class Summary(_Frozen):
    """Everything in `summary.json`."""

    schema_version: Literal[1] = Field(1, description="version of this file's format")
    study: Name = Field(description="study name")
    task: Task = Field(description="what the model learned")
    strategy: str = Field(min_length=1, description="how updates were combined")
    seed: int = Field(ge=0, description="the study's seed")
    rounds_requested: int = Field(ge=1, description="rounds the study asked for")
    rounds_completed: int = Field(ge=0, description="rounds that counted")
    finished: bool | None = Field(
        None,
        description="whether the run is over: after its last round, or as a model that ends by itself is complete; "
        "absent in runs of earlier versions",
        exclude_if=lambda value: value is None,
    )
    sites: tuple[SiteSummary, ...] = Field(description="sites that took part")
    metrics: dict[str, MetricSummary] = Field(description="the model that is handed out, measured at the sites")
    is_tested: bool = Field(
        False,
        description="of a segmentation: whether `metrics` are of test patients, on whom nothing was trained or chosen; "
        "absent where they are of validation patients",
        exclude_if=lambda value: not value,
    )
    withheld: dict[str, tuple[Name, ...]] = Field(
        default_factory=dict,
        description="metric to the sites that told others, but not this one: of fewer patients than `min_patients`, or "
        "undefined",
        exclude_if=lambda value: not value,
    )
    few_patients: dict[str, int] = Field(
        default_factory=dict,
        description="metric to the patients behind it, of the first ones and those of groups, where they rest on few",
        exclude_if=lambda value: not value,
    )
    history: tuple[RoundSummary, ...] = Field(description="every round, in order")
    timing: Timing = Field(description="where the time went")
    model: str = Field(description="its folder, relative to the summary's own")
    differential_privacy: PrivacyPromise | None = Field(
        None, description="what noise bounds; absent without", exclude_if=lambda value: value is None
    )
    chosen: Chosen | None = Field(
        None,
        description="of a study that hands out the model of its best round: which one",
        exclude_if=lambda value: value is None,
    )
    started_from: StartedFrom | None = Field(
        None,
        description="what the first weights are of; absent where those are random",
        exclude_if=lambda value: value is None,
    )
    evaluated: Evaluated | None = Field(
        None, description="the model that was measured, and not trained", exclude_if=lambda value: value is None
    )
    local_baselines: LocalBaselines | None = Field(
        None, description="each site's own model beside the shared one", exclude_if=lambda value: value is None
    )
    classification: ClassificationSummary | None = Field(
        None, description="of a classification: threshold, groups, matrices", exclude_if=lambda value: value is None
    )

    regression: RegressionSummary | None = Field(
        None, description="of a regression: how far predictions are off", exclude_if=lambda value: value is None
    )

    @property
    def split(self) -> Split:
        """The patients whom the figures are of."""
        if (found := self.classification or self.regression) is not None:
            return found.split
        return "test" if self.is_tested else "validation"

    @property
    def is_pooled(self) -> bool:
        """Whether the sites' values were added up under masks, so that none is known by itself."""
        return any(site.name == POOLED for site in self.sites)

    @property
    def site_names(self) -> tuple[str, ...]:
        """The sites that took part; under masks those of the last round."""
        if self.is_pooled:
            return self.history[-1].sites_ok if self.history else ()
        return tuple(site.name for site in self.sites)

    @property
    def num_sites(self) -> int:
        """How many sites took part."""
        return len(self.site_names)

    @property
    def is_finished(self) -> bool:
        """Whether the run is over; of earlier versions, whether it has all its rounds."""
        return self.rounds_completed >= self.rounds_requested if self.finished is None else self.finished

    @property
    def ended_early(self) -> bool:
        """Whether its rounds ended as none was better for as long as the study waits."""
        return self.chosen is not None and self.chosen.ended_early

    @property
    def choice_in_words(self) -> str:
        """Which model is handed out, of a study that chooses one; else empty."""
        return self.chosen.in_words(self.rounds_completed, self.split) if self.chosen else ""

    @property
    def rounds_in_words(self) -> str:
        """`12 of 12 rounds`, `3 of 12 rounds, not finished`, or how early a model was complete."""
        if self.is_finished and self.ended_early:
            return f"ended early after round {self.rounds_completed} of {self.rounds_requested}"
        if self.is_finished and self.rounds_completed < self.rounds_requested:
            return f"complete after round {self.rounds_completed} of at most {self.rounds_requested}"
        told = f"{self.rounds_completed} of {self.rounds_requested} rounds"
        return told if self.is_finished else f"{told}, not finished"

    @field_validator("metrics", "withheld", "few_patients")
    @classmethod
    def _known(cls, value: dict[str, Any]) -> dict[str, Any]:
        if unknown := sorted(set(value) - set(ALL_METRICS)):
            raise ValueError(f"unknown metric {unknown[0]!r}; known are {', '.join(ALL_METRICS)}")
        return value

    @field_validator("model")
    @classmethod
    def _relative(cls, value: str) -> str:
        if PurePosixPath(value).is_absolute() or "\\" in value or ":" in value:
            raise ValueError(f"expected a path relative to the summary's folder, found {value!r}")
        return value


def read_summary(out: Path) -> Summary:
    """Read the summary of a run's folder.

    Raises:
        InputError: the file is missing, cannot be read, or is no summary of this version.
    """
    path = out / SUMMARY_FILE
    try:
        return parse_record(Summary, path.read_bytes(), str(path))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; expected the output folder of a run that completed a round") from None
    except OSError as error:
        raise InputError(f"{path}: {unreadable(error)}") from None
    except ConfigError as error:
        raise InputError(f"{error}; it is damaged, or of another version: restore it from a backup") from None


def write_summary(out: Path, summary: Summary) -> Path:
    """Write `summary.json` in one step and return its path."""
    path = out / SUMMARY_FILE
    write_text(path, summary.model_dump_json(indent=2) + "\n")
    return path
