"""How well predicted probabilities agree with outcomes, with patient-clustered intervals.

Legend: N cases, K classes, P patients, R weightings of the cases.

Of two classes the last one is positive, and every figure is about it. Of more, each class is held against the rest
and the mean over the classes at hand is taken (one-vs-rest, macro), except for accuracy, balanced accuracy and Brier,
which know all classes at once. A case is given the positive class from the threshold on; of more than two classes, the
most probable one (of equals the first), whatever the threshold.

| metric | what it is | undefined where |
|---|---|---|
| auroc | a positive case scores above a negative one, equal scores count half | one class only |
| auprc | average precision, equal scores as one block, no interpolation | one class only |
| prevalence | share of positive cases, which is what auprc would be by chance | never |
| brier | mean squared distance to the outcome; of K classes half the summed one, so that it ends at 1 | never |
| ece | mean gap between probability and frequency in ten equal bins, by cases, without that of chance | never |
| calibration_slope | slope of a logistic regression of the outcome on the logit | classes apart or one only |
| calibration_intercept | intercept of it with the slope fixed at 1 (calibration in the large) | one class only |
| balanced_accuracy | mean sensitivity of the classes at hand | one class only |
| sensitivity, specificity | right among positive, among negative cases | no such case |
| precision | positive among those predicted so | none predicted |
| f1, f05 | F-beta of beta 1 and 0.5; 0 where none is right | none positive or predicted so |
| accuracy | share of right cases | never |

NaN means undefined; such a figure counts no case (`msfl_common.metrics.intervals`), and pooling leaves its site out.

Calibration: Van Calster et al., BMC Medicine 2019. ECE: Guo et al., ICML 2017, of the positive class, less what
outcomes by chance add to it (`scored.gap_without_chance`); it has no interval. Weights of cases stand for samples
without a patient: all of them go through the same arithmetic as the cases themselves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msfl_common.metrics import effective_number as number
from msfl_common.metrics.effective_number import SiteCases, SizeOf
from msfl_common.metrics.intervals import Estimate, share_estimate, with_interval
from msfl_common.metrics.metric import Metric
from msfl_common.metrics.scored import Confusion, Scores, calibration_error, mean_defined, ratio

Floats = NDArray[np.float64]

UNDEFINED = Estimate(math.nan, 0, math.nan, math.nan, math.nan, 0)
_CHUNK_VALUES = 2**21  # of weightings times cases that are worked on at once: 16 MB an array


@dataclass(frozen=True, kw_only=True)
class ClassificationMetric(Metric):
    """A metric of all cases together, of their scores or of the confusion matrix.

    Attributes:
        of_scores: its value under each of R weightings, NaN where undefined.
        of_confusion: the same of R confusion matrices: it rests on the predicted classes, and so on the threshold, and
            is withheld where one of them is of too few patients.
        is_of_classes: whether it is of the cases of one class, or holds them against those of another: it is withheld
            where a class has too few patients. What is of all cases at once is not.
        in_pipelines: whether it is among the figures of a small cohort's pipelines, by `of_confusion`.
        counts_all: whether the patients behind it are all, not those of the smallest class: it says how many are of the
            class, and an interval that is shown where these happen to be many is shown where it is off by chance.
        size_of: of a share of two classes, how many independent cases it stands for; else the jackknife over patients
            tells how it spreads.
        error_of: of a coefficient of two classes, its standard error; else the jackknife tells it.
    """

    of_scores: Callable[[Scores], Floats] | None = None
    of_confusion: Callable[[Confusion], Floats] | None = None
    is_of_classes: bool = True
    in_pipelines: bool = False
    counts_all: bool = False
    size_of: SizeOf | None = None
    error_of: Callable[[SiteCases], float] | None = None

    def measure(self, scores: Scores) -> Floats:
        """Its value under each weighting."""
        if self.of_confusion is not None:
            return self.of_confusion(scores.confusion)
        assert self.of_scores is not None
        return self.of_scores(scores)


def class_metrics() -> tuple[str, ...]:
    """What is of the cases of one class, or holds them against those of another."""
    return tuple(name for name, metric in CLASSIFICATION_METRICS.items() if metric.is_of_classes)


def threshold_metrics() -> tuple[str, ...]:
    """What rests on the predicted classes, and so on the threshold."""
    return tuple(name for name, metric in CLASSIFICATION_METRICS.items() if metric.of_confusion is not None)


def measure(
    probabilities_NK: Floats, labels_N: NDArray[np.int64], patients: Sequence[str], threshold: float
) -> dict[str, Estimate]:
    """Each metric with a patient-clustered 95% interval; see `Metric.spread` and `effective_number`.

    Args:
        probabilities_NK: of each class, each row adding up to 1.
        labels_N: the outcomes, 0 to K - 1.
        patients: N patient names.
        threshold: the last of two classes from this probability on.

    Returns:
        One estimate for each name in `CLASSIFICATION_METRICS`, in that order.

    Raises:
        ValueError: shapes, probabilities or labels are not as declared.
    """
    check_scores(probabilities_NK, labels_N, patients)
    num_cases = len(labels_N)
    if not num_cases:
        return dict.fromkeys(CLASSIFICATION_METRICS, UNDEFINED)
    scores = Scores(probabilities_NK, labels_N, threshold, np.ones((1, num_cases)))
    _, patient_N = np.unique(np.asarray(patients, dtype=np.str_), return_inverse=True)
    cases = SiteCases(scores, patient_N)
    values = {name: float(metric.measure(scores)[0]) for name, metric in CLASSIFICATION_METRICS.items()}
    errors = jackknife_errors(
        cases, [name for name, metric in CLASSIFICATION_METRICS.items() if _needs_jackknife(metric, scores.num_classes)]
    )
    return {name: _estimate(name, value, cases, errors) for name, value in values.items()}


def jackknife_errors(cases: SiteCases, names: Sequence[str]) -> dict[str, float]:
    """Standard errors by leaving out each patient in turn (Efron and Stein, Ann Stat 1981); NaN if one is undefined."""
    num_patients, num_cases = int(cases.patient_N.max()) + 1, len(cases.patient_N)
    if num_patients < 2 or not names:
        return dict.fromkeys(names, math.nan)
    values: dict[str, list[Floats]] = {name: [] for name in names}
    for start in range(0, num_patients, per_chunk := max(1, _CHUNK_VALUES // num_cases)):
        left_out = np.arange(start, min(start + per_chunk, num_patients))
        weights_RN = (cases.patient_N[None] != left_out[:, None]).astype(np.float64)
        scores = Scores(cases.scores.probabilities_NK, cases.scores.labels_N, cases.scores.threshold, weights_RN)
        for name in names:
            values[name].append(CLASSIFICATION_METRICS[name].measure(scores))
    inflation = math.sqrt(num_patients - 1)
    return {name: inflation * float(np.std(np.concatenate(found))) for name, found in values.items()}


def metrics_of(
    probabilities_NK: Floats, labels_N: NDArray[np.int64], threshold: float, weights_RN: Floats
) -> dict[str, Floats]:
    """Every metric under each of R weightings of the cases, NaN where undefined; see the top of this file."""
    scores = Scores(probabilities_NK, labels_N, threshold, weights_RN)
    return {name: metric.measure(scores) for name, metric in CLASSIFICATION_METRICS.items()}


def check_scores(probabilities_NK: Floats, labels_N: NDArray[np.int64], patients: Sequence[str]) -> None:
    """Refuse what no model may have answered.

    Raises:
        ValueError: shapes, probabilities or labels are not as declared.
    """
    if probabilities_NK.ndim != 2 or probabilities_NK.shape[1] < 2:
        raise ValueError(f"expected probabilities of two classes or more, found shape {probabilities_NK.shape}")
    num_cases, num_classes = probabilities_NK.shape
    if labels_N.shape != (num_cases,) or len(patients) != num_cases:
        raise ValueError(f"expected {num_cases} labels and patients, found {labels_N.shape} and {len(patients)}")
    if not np.isfinite(probabilities_NK).all() or (probabilities_NK < 0).any() or (probabilities_NK > 1).any():
        raise ValueError("expected probabilities between 0 and 1")
    if np.abs(probabilities_NK.sum(axis=1) - 1).max(initial=0.0) > 1e-5:
        raise ValueError("expected the probabilities of a case to add up to 1")
    if num_cases and not (labels_N.min() >= 0 and labels_N.max() < num_classes):
        raise ValueError(f"expected labels from 0 to {num_classes - 1}")


def _has_interval(metric: ClassificationMetric, num_classes: int) -> bool:
    """Coefficients of each of more than two classes against the rest have none for their mean."""
    return metric.spread != "none" and (metric.spread != "normal" or num_classes == 2)


def _needs_jackknife(metric: ClassificationMetric, num_classes: int) -> bool:
    is_alone = num_classes == 2 and (metric.size_of is not None or metric.error_of is not None)
    return _has_interval(metric, num_classes) and not is_alone


def _estimate(name: str, value: float, cases: SiteCases, jackknife: Mapping[str, float]) -> Estimate:
    if not math.isfinite(value):
        return UNDEFINED
    metric, num_cases, num_classes = CLASSIFICATION_METRICS[name], len(cases.patient_N), cases.scores.num_classes
    num_patients = int(cases.patient_N.max()) + 1
    fewest = cases.fewest_patients if metric.is_of_classes and not metric.counts_all else num_patients
    if not _has_interval(metric, num_classes):
        return Estimate(value, num_cases, math.nan, math.nan, math.nan, fewest)
    if name in jackknife:
        error, behind = jackknife[name], fewest if num_classes == 2 else num_patients
        if metric.spread == "share":
            return share_estimate(value, num_cases, number.of_error(value, error, behind).effective, fewest)
        return with_interval(value, num_cases, error, max(1, behind - 1), metric.interval_range, fewest)
    if metric.size_of is not None:
        return share_estimate(value, num_cases, *metric.size_of(cases))
    assert metric.error_of is not None
    return with_interval(value, num_cases, metric.error_of(cases), math.inf, metric.interval_range, fewest)


def _brier(scores: Scores) -> Floats:
    distances_N = 0.5 * ((scores.probabilities_NK - scores.outcomes) ** 2).sum(axis=1)
    return np.asarray(scores.weights_RN @ distances_N / scores.total)


def _balanced_accuracy(confusion: Confusion) -> Floats:
    found_KR = ratio(confusion.right, confusion.true)
    return np.where(confusion.is_one_class, np.nan, mean_defined(found_KR))


def _specificity(confusion: Confusion) -> Floats:
    total_KR, right_KR, true_KR = confusion.total[None], confusion.right, confusion.true
    return confusion.over_classes(ratio(total_KR - true_KR - confusion.predicted + right_KR, total_KR - true_KR))


def _f_beta(confusion: Confusion, beta2: float) -> Floats:
    """F-beta from the square of beta."""
    weighted_KR = beta2 * confusion.true + confusion.predicted
    return confusion.over_classes(ratio((1 + beta2) * confusion.right, weighted_KR))


def _share(
    title: str, higher_is_better: bool | None = True, *, lower: float = 0.0, upper: float = 1.0, **more: Any
) -> ClassificationMetric:
    return ClassificationMetric(
        title=title,
        unit="",
        higher_is_better=higher_is_better,
        lower=lower,
        upper=upper,
        **{"spread": "share" if (lower, upper) == (0.0, 1.0) else "normal", **more},
    )


_UNBOUNDED: dict[str, Any] = {"lower": -math.inf, "upper": math.inf}

CLASSIFICATION_METRICS: dict[str, ClassificationMetric] = {
    "auroc": _share(
        "AUROC",
        of_scores=lambda s: s.over_classes(one for one, _ in s.areas),
        size_of=number.of_auroc,
        headline="AUROC",
        fewest=5,
    ),
    "auprc": _share(
        "AUPRC",
        of_scores=lambda s: s.over_classes(one for _, one in s.areas),
        headline="AUPRC",
        fewest=20,
        fewest_each=2,
    ),
    "prevalence": _share(
        "Prevalence (AUPRC of chance)",
        None,
        of_scores=lambda s: s.over_classes(s.shares),
        spread="none",
    ),
    "brier": _share(
        "Brier score",
        False,
        of_scores=_brier,
        is_of_classes=False,
        size_of=number.of_brier,
        headline="Brier",
        fewest=50,
        fewest_each=2,
    ),
    "ece": _share(
        "Calibration error (ECE)",
        False,
        lower=-1.0,
        of_scores=lambda s: s.over_classes(s.of_each(calibration_error)),
        is_of_classes=False,
        spread="none",
        shown_from=0.0,
    ),
    "calibration_slope": _share(
        "Calibration slope",
        None,
        of_scores=lambda s: s.over_classes(slope for slope, _ in s.calibrations),
        error_of=lambda cases: cases.calibration_errors[0],
        target=1.0,
        **_UNBOUNDED,
        fewest=10,
        fewest_each=5,
    ),
    "calibration_intercept": _share(
        "Calibration intercept",
        None,
        of_scores=lambda s: s.over_classes(intercept for _, intercept in s.calibrations),
        error_of=lambda cases: cases.calibration_errors[1],
        target=0.0,
        **_UNBOUNDED,
        counts_all=True,
        fewest=20,
        fewest_each=2,
    ),
    "balanced_accuracy": _share(
        "Balanced accuracy",
        of_confusion=_balanced_accuracy,
        size_of=number.of_balanced_accuracy,
        in_pipelines=True,
        fewest=10,
    ),
    "sensitivity": _share(
        "Sensitivity",
        of_confusion=lambda c: c.over_classes(ratio(c.right, c.true)),
        size_of=number.of_sensitivity,
        fewest=10,
    ),
    "specificity": _share(
        "Specificity",
        of_confusion=_specificity,
        size_of=number.of_specificity,
        fewest=10,
    ),
    "precision": _share(
        "Precision",
        of_confusion=lambda c: c.over_classes(ratio(c.right, c.predicted)),
        size_of=number.of_precision,
        fewest=10,
        of_what_is_found=True,
        fewest_each=0.75,  # sites without a positive case tell none, and the others' is too high
    ),
    "f1": _share(
        "F1",
        of_confusion=lambda c: _f_beta(c, 1.0),
        size_of=number.of_f_beta(1.0),
        in_pipelines=True,
        fewest=20,
        fewest_each=0.5,
    ),
    "f05": _share(
        "F-beta (0.5)",
        of_confusion=lambda c: _f_beta(c, 0.25),
        size_of=number.of_f_beta(0.25),
        fewest=20,
        fewest_each=0.5,
    ),
    "accuracy": _share(
        "Accuracy",
        of_confusion=lambda c: c.right.sum(axis=0) / c.total,
        is_of_classes=False,
        size_of=number.of_accuracy,
        in_pipelines=True,
        fewest=20,
    ),
}
