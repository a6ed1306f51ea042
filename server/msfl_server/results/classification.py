"""What `summary.json` says of a classification beside its metrics: threshold, groups of scores, confusion matrices.

Legend: G groups (mean score, cases, positive cases), K classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from msfl_common.config.base import Name
from msfl_common.config.classification import Classification, Split
from msfl_common.messages.validation_metrics import ValidationMetrics
from msfl_common.metrics.classification_curves import (
    DEFAULT_THRESHOLD,
    auprc,
    auroc,
    brier,
    calibration_curve,
    calibration_error,
    choose_threshold,
    pool_score_bins,
)
from msfl_common.metrics.intervals import effective_number
from msfl_common.metrics.reliability import Group, Reliability
from msfl_common.metrics.score_bins import CASES, POSITIVES
from msfl_common.metrics.scored import scored_classes
from msfl_server.results.coefficients import Coefficient
from msfl_server.results.training_inputs import Characteristics, TrainingInputs

Count = Annotated[int, Field(ge=0)]
Confusion = tuple[tuple[Count, ...], ...]
ClassCounts = tuple[Count, ...]
Part = Literal["training", "validation", "test"]

_TOGETHER = {"auroc": auroc, "auprc": auprc, "brier": brier, "ece": calibration_error}


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ClassificationAtSite(_Frozen):
    """What a site told of its cases."""

    num_cases: int = Field(ge=1, description="cases measured")
    prevalence: float | None = Field(description="share of the last of two classes; null where there are more")
    groups: tuple[tuple[Group, ...], ...] = Field(
        description="of each scored class (the last of two, else each): mean score, cases and positive cases of each "
        "group, low scores first; empty where withheld"
    )
    confusion: Confusion | None = Field(description="cases by true class (rows) and predicted class; null: withheld")


class ClassificationSummary(_Frozen):
    """The final model's answers, measured at the sites."""

    outcome: str = Field(description="what is predicted: a column, or an endpoint with its settings")
    classes: tuple[str, ...] = Field(description="the outcome's classes; of two, the last is the positive one")
    split: Split = Field(description="which patients: test (used for nothing else) or validation")
    threshold: float | None = Field(
        ge=0, le=1, description="the last of two classes from this probability on, chosen on validation; null: more"
    )
    sites: dict[Name, ClassificationAtSite] = Field(description="site by site")
    design_effect: float = Field(
        1.0,
        ge=1,
        description="cases that tell as much as one that is independent: visits of a patient are alike",
        exclude_if=lambda value: value == 1.0,
    )
    together: dict[str, float] = Field(
        description="auroc, auprc, brier and ece of all sites' groups together, approximate; undefined ones absent"
    )
    class_counts: dict[Part, dict[Name, ClassCounts]] = Field(
        default_factory=dict,
        description="cases of each class at the sites that told them; 0 in training: none, or fewer patients than the "
        "site's floor, which are in no sum",
        exclude_if=lambda value: not value,
    )
    inputs: tuple[str, ...] = Field(
        (), description="of a model of features: its inputs, in order", exclude_if=lambda value: not value
    )
    characteristics: tuple[Characteristics, ...] = Field(
        (),
        description="of a model of features: inputs of the training cases, as the sites' first sums tell of them",
        exclude_if=lambda value: not value,
    )
    coefficients: tuple[Coefficient, ...] = Field(
        (), description="of a linear model of features: what each input adds", exclude_if=lambda value: not value
    )

    @property
    def curve_names(self) -> tuple[str, ...]:
        """The scored classes."""
        return tuple(self.classes[number] for number in scored_classes(len(self.classes)))

    @property
    def confusion(self) -> NDArray[np.int64] | None:
        """The matrices of all sites that told theirs, added up, K x K."""
        disclosed = [np.array(site.confusion) for site in self.sites.values() if site.confusion is not None]
        return np.sum(disclosed, axis=0) if disclosed else None

    def groups_at(self, site: str, number: int) -> NDArray[np.float64]:
        """A site's groups of a scored class, G x 3."""
        return np.array(self.sites[site].groups[number], dtype=np.float64).reshape(-1, 3)

    def groups_together(self, number: int) -> NDArray[np.float64]:
        """All sites' groups of a scored class, G x 3."""
        return pool_score_bins(self.groups_at(site, number) for site in self.sites)


def threshold_of(validation: Mapping[str, ValidationMetrics]) -> float:
    """The threshold that the sites' validation score bins ask for; 0.5 without them, and of more than two classes."""
    disclosed = [metrics.score_bins for metrics in validation.values() if metrics.score_bins is not None]
    if not disclosed or len(disclosed[0]) > 1:
        return DEFAULT_THRESHOLD
    return choose_threshold(pool_score_bins(bins_CG3[0] for bins_CG3 in disclosed))


def reliability_of(*measured: Mapping[str, ValidationMetrics]) -> Reliability | None:
    """What a model card says of the final model's scores; None where no site told of any.

    Args:
        measured: site to what it told, for each part of the patients that the model was not trained on. All their
            groups are joined to ten or fewer, so that hardly one is of a single site.
    """
    metrics = [one for part in measured for one in part.values()]
    disclosed = [one.score_bins for one in metrics if one.score_bins is not None and one.score_bins.any()]
    if not disclosed:
        return None
    joined = [
        calibration_curve(pool_score_bins(bins[number] for bins in disclosed)) for number in range(len(disclosed[0]))
    ]
    return Reliability(groups=tuple(groups_of(points_G3) for points_G3 in joined), design_effect=design_effect(metrics))


def design_effect(measured: Iterable[ValidationMetrics]) -> float:
    """That of the sites' accuracies: how far predictions are right together at visits of one patient."""
    told = [metrics.estimates["accuracy"] for metrics in measured if "accuracy" in metrics.estimates]
    sizes = {index: size for index, one in enumerate(told) if math.isfinite(size := effective_number(one))}
    cases = sum(told[index].num_cases for index in sizes)
    # Effective numbers are read back from rounded figures.
    return round(min(max(1.0, cases / sum(sizes.values())), 1e6), 3) if sizes else 1.0


def summarise_classification(
    classification: Classification, measured: Mapping[str, ValidationMetrics], threshold: float, split: Split
) -> ClassificationSummary:
    """The section of a run.

    Args:
        classification: what the study predicts.
        measured: site to what it told of these patients.
        threshold: the one that the sites measured with; see `threshold_of`.
        split: which patients they measured.
    """
    classes = classification.outcome.classes
    sites = {
        site: _at_site(metrics, len(classes))
        for site, metrics in sorted(measured.items())
        if metrics.score_bins is not None
    }
    summary = ClassificationSummary(
        outcome=classification.outcome.in_words,
        classes=classes,
        split=split,
        threshold=threshold if len(classes) == 2 else None,
        sites=sites,
        design_effect=design_effect(measured.values()),
        together={},
    )
    return summary.model_copy(update={"together": _together(summary)})


def class_counts_of(metrics: ValidationMetrics) -> ClassCounts | None:
    """Cases of each class among those that a site measured; None where it told of none, or of too few.

    Under masks some sites may have withheld the matrix and others the groups: what tells of more cases is taken.
    """
    told: list[ClassCounts] = []
    if metrics.confusion is not None:
        told.append(tuple(int(count) for count in metrics.confusion.sum(axis=1)))
    if metrics.score_bins is not None:
        positives = [int(groups_G3[:, POSITIVES].sum()) for groups_G3 in metrics.score_bins]
        rest = () if len(positives) > 1 else (int(metrics.score_bins[0, :, CASES].sum()) - positives[0],)
        told.append((*rest, *positives))
    counts = max(told, key=sum, default=())
    return counts if any(counts) else None


def counts_by_class(
    training: Mapping[str, TrainingInputs],
    validation: Mapping[str, ValidationMetrics],
    test: Mapping[str, ValidationMetrics],
) -> dict[Part, dict[str, ClassCounts]]:
    """Cases of each class of each part of the patients, at the sites that told them; parts without one are absent."""
    told: dict[Part, dict[str, ClassCounts]] = {"training": {site: one.cases for site, one in sorted(training.items())}}
    measured: tuple[tuple[Part, Mapping[str, ValidationMetrics]], ...] = (("validation", validation), ("test", test))
    for part, sites in measured:
        counts = {site: class_counts_of(metrics) for site, metrics in sorted(sites.items())}
        told[part] = {site: count for site, count in counts.items() if count is not None}
    return {part: sites for part, sites in told.items() if sites}


def _at_site(metrics: ValidationMetrics, num_classes: int) -> ClassificationAtSite:
    assert metrics.score_bins is not None
    groups = tuple(groups_of(groups_G3) for groups_G3 in metrics.score_bins)
    prevalence = metrics.estimates.get("prevalence") if num_classes == 2 else None
    confusion = None
    if metrics.confusion is not None and metrics.confusion.any():
        confusion = tuple(tuple(int(count) for count in row) for row in metrics.confusion)
    return ClassificationAtSite(
        num_cases=metrics.num_cases,
        prevalence=prevalence.mean if prevalence else None,
        groups=groups,
        confusion=confusion,
    )


def groups_of(groups_G3: NDArray[np.float64]) -> tuple[Group, ...]:
    """Groups as a summary and a model card hold them, without rows of 0."""
    return tuple(
        (min(float(score), 1.0), int(cases), int(positives)) for score, cases, positives in groups_G3 if cases
    )  # a mean of ones may come out a little above


def _together(summary: ClassificationSummary) -> dict[str, float]:
    """What can be said of all sites' groups as if they were one site's."""
    pooled = [summary.groups_together(number) for number in range(len(summary.curve_names))]
    figures = {name: _mean_defined(figure(groups_G3) for groups_G3 in pooled) for name, figure in _TOGETHER.items()}
    if len(pooled) > 1 and figures["brier"] is not None:
        figures["brier"] *= len(pooled) / 2  # half the sum over classes, as in `metrics.classification`
    return {name: value for name, value in figures.items() if value is not None}


def _mean_defined(values: Iterable[float]) -> float | None:
    defined = [value for value in values if math.isfinite(value)]
    return sum(defined) / len(defined) if defined else None
