"""`cross-validation.json`: what each fold's test patients said of its model, and what the folds say together.

A metric's mean over the folds is the plain mean of the folds that told it. Their test patients are different patients,
so that the variances of K folds add up, as those of sites do (`msfl_common.metrics.intervals.pool`, each fold counting
the same). That is the variance of who is tested. The folds' models share most of their training patients, and how far
they would vary with other ones the interval leaves out; no unbiased estimate of it exists (Bengio and Grandvalet, J
Mach Learn Res 2004).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from msfl_common.config.base import Name
from msfl_common.config.study import StudyConfig
from msfl_common.messages.validation_metrics import ValidationMetrics
from msfl_common.metrics.intervals import Estimate, pool
from msfl_common.metrics.registry import ALL_METRICS
from msfl_common.models.model_card import lesions_in_words
from msfl_common.secure_aggregation.layout import POOLED
from msfl_common.system.files import write_text
from msfl_server.research.simulation.folder import RunSetup
from msfl_server.results.metrics import summarise_metrics
from msfl_server.results.summary import summarise_metric
from msfl_server.rounds.checkpoint import RunState

RESULTS_FILE, PLAN_FILE = "cross-validation.json", "folds.json"


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class FoldMetric(_Frozen):
    """A metric of one fold, over the sites that told it."""

    mean: float = Field(description="mean over the test cases, in the metric's unit")
    standard_error: float | None = Field(description="of the mean; null when not estimable")
    ci95_low: float | None = Field(description="low end of the 95% interval; null where patients are too few for one")
    ci95_high: float | None = Field(description="high end of the 95% interval; null where patients are too few for one")
    num_cases: int = Field(ge=1, description="test cases behind it")
    num_patients: int | None = Field(
        None,
        ge=0,
        description="test patients behind it, of the smallest group (as a class) that it rests on; null where not told",
    )
    num_sites: int = Field(ge=1, description="sites that told it")


class FoldResult(_Frozen):
    """One fold: a model, and what those held out said of it."""

    name: str = Field(description="the fold's folder")
    left_out: Name | None = Field(description="the site that was left out whole; null where every site held out a part")
    rounds_completed: int = Field(ge=1, description="rounds of its training")
    sites: dict[Name, int] = Field(description="sites that measured the model, with their test cases")
    withheld: tuple[Name, ...] = Field(
        description="sites that were asked and told nothing: too few cases, or one class"
    )
    metrics: dict[str, FoldMetric] = Field(description="metrics by name; one that no site told is absent")

    @property
    def num_cases(self) -> int:
        """Test cases of all sites that told anything."""
        return sum(self.sites.values())


class Extreme(_Frozen):
    """The fold with the smallest or largest value."""

    fold: str = Field(description="the fold's name")
    value: float = Field(description="its value, in the metric's unit")


class OverFolds(_Frozen):
    """A metric over the folds that told it."""

    mean: float = Field(description="plain mean of the folds' values, in the metric's unit")
    ci95_low: float | None = Field(description="low end of the 95% interval; null where patients are too few for one")
    ci95_high: float | None = Field(description="high end of the 95% interval; null where patients are too few for one")
    num_folds: int = Field(ge=1, description="folds that told it")
    num_patients: int | None = Field(
        None,
        ge=0,
        description="test patients of all folds, of the smallest group that it rests on; null where not told",
    )
    withheld: tuple[str, ...] = Field(description="folds in which no site told it; they are not in the mean")
    smallest: Extreme = Field(description="the fold with the smallest value")
    largest: Extreme = Field(description="the fold with the largest value")


class CrossValidation(_Frozen):
    """Everything in `cross-validation.json`."""

    schema_version: Literal[1] = Field(1, description="version of this file's format")
    study: Name = Field(description="study name")
    seed: int = Field(ge=0, description="the study's seed")
    kind: Literal["own-cases", "leave-one-site-out"] = Field(
        description="every site holds out its own cases, or one site is left out whole"
    )
    outcome: str = Field(description="what is predicted: a column, an endpoint with its settings, or MS lesions")
    folds: tuple[FoldResult, ...] = Field(description="every fold, in order")
    metrics: dict[str, OverFolds] = Field(description="each metric over the folds")
    together: dict[str, FoldMetric] = Field(
        default_factory=dict,
        description="metrics of all folds' test patients together, each scored by the model that was trained without "
        "him, at the sites that may tell them",
    )


def fold_result(name: str, setup: RunSetup, state: RunState) -> FoldResult:
    """What a fold that has run to its end came to."""
    left_out, test = setup.study.left_out, state.test
    asked = [site.name for site in setup.sites] if left_out is None else [left_out]
    if POOLED in test:
        asked = [POOLED]
    return FoldResult(
        name=name,
        left_out=left_out,
        rounds_completed=state.round,
        sites={site: test[site].num_cases for site in asked if site in test},
        withheld=tuple(site for site in asked if site not in test),
        metrics=_fold_metrics(test),
    )


def _fold_metrics(test: Mapping[str, ValidationMetrics]) -> dict[str, FoldMetric]:
    metrics = {}
    for name, summary in summarise_metrics(test).items():
        disclosed = {site: one.estimates[name] for site, one in test.items() if name in one.estimates}
        error = pool(disclosed, ALL_METRICS[name].spread).standard_error  # the summary does not tell it
        metrics[name] = FoldMetric(
            mean=summary.mean,
            standard_error=error if math.isfinite(error) else None,
            ci95_low=summary.ci95_low,
            ci95_high=summary.ci95_high,
            num_cases=summary.num_cases,
            num_patients=summary.num_patients,
            num_sites=summary.num_sites,
        )
    return metrics


def cross_validation(
    study: StudyConfig, folds: Sequence[FoldResult], together: Mapping[str, ValidationMetrics] = MappingProxyType({})
) -> CrossValidation:
    """The folds and what they say together.

    Args:
        study: what is trained.
        folds: each of them, in order.
        together: what each site tells of all folds' test patients.
    """
    disclosed = {name: {fold.name: fold.metrics.get(name) for fold in folds} for name in ALL_METRICS}
    return CrossValidation(
        study=study.name,
        seed=study.seed,
        kind="own-cases" if folds[0].left_out is None else "leave-one-site-out",
        outcome=study.classification.outcome.in_words if study.classification else f"MS {lesions_in_words(study)}",
        folds=tuple(folds),
        metrics={name: over_folds(name, values) for name, values in disclosed.items() if any(values.values())},
        together=_fold_metrics(together),
    )


def over_folds(name: str, folds: Mapping[str, FoldMetric | None]) -> OverFolds:
    """A metric over folds, at least one of which told it; the mean's interval as said at the top.

    Args:
        name: a name in `ALL_METRICS`.
        folds: by name; None where no site told it.
    """
    disclosed = {fold: metric for fold, metric in folds.items() if metric is not None}
    estimates = {fold: _counting_once(metric) for fold, metric in disclosed.items()}
    together = summarise_metric(name, estimates)
    assert together is not None
    needed_each = ALL_METRICS[name].fewest_each  # of each site of each fold, as biases add up
    num_sites = sum(metric.num_sites for metric in disclosed.values())
    has_interval = all(
        metric.standard_error is not None
        and (metric.num_patients is None or metric.num_patients >= needed_each * num_sites * metric.num_sites)
        for metric in disclosed.values()
    )
    low, high = (together.ci95_low, together.ci95_high) if has_interval else (None, None)
    smallest, largest = (pick(disclosed, key=lambda fold: disclosed[fold].mean) for pick in (min, max))
    return OverFolds(
        mean=together.mean,
        ci95_low=low,
        ci95_high=high,
        num_folds=len(disclosed),
        num_patients=together.num_patients,
        withheld=tuple(fold for fold in folds if fold not in disclosed),
        smallest=Extreme(fold=smallest, value=disclosed[smallest].mean),
        largest=Extreme(fold=largest, value=disclosed[largest].mean),
    )


def _counting_once(metric: FoldMetric) -> Estimate:
    error = math.nan if metric.standard_error is None else metric.standard_error
    return Estimate(metric.mean, 1, error, math.nan, math.nan, metric.num_patients)


def write_results(out: Path, results: CrossValidation) -> Path:
    """Write `cross-validation.json` in one step and return its path."""
    path = out / RESULTS_FILE
    write_text(path, results.model_dump_json(indent=2) + "\n")
    return path
