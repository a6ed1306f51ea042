"""Classification metrics against scikit-learn and by hand, and intervals against the truth."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import statsmodels.api as sm
from numpy.typing import NDArray
from scipy.stats import foldnorm
from sklearn import metrics as sk
from sklearn.linear_model import LogisticRegression
from statsmodels.stats.proportion import proportion_confint

from msfl_common.metrics.calibration_fit import calibration_of, standard_errors
from msfl_common.metrics.classification import (
    CLASSIFICATION_METRICS,
    jackknife_errors,
    measure,
    metrics_of,
    threshold_metrics,
)
from msfl_common.metrics.effective_number import SiteCases, of_auroc
from msfl_common.metrics.lesion_classes import CLASS_METRICS
from msfl_common.metrics.new_lesions import NEW_LESION_METRICS, NEW_LESION_NATIVE_METRICS
from msfl_common.metrics.registry import ALL_METRICS, HEADLINE, TASK_METRICS
from msfl_common.metrics.regression import REGRESSION_METRICS
from msfl_common.metrics.scored import Scores, confusion_matrix, predict_classes
from msfl_common.metrics.segmentation import METRICS, NATIVE_METRICS
from msfl_common.metrics.strata import strata_of

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


def two_classes(score_N: object) -> Floats:
    score = np.asarray(score_N, dtype=np.float64)
    return np.stack([1 - score, score], axis=1)


def value_of(probabilities: Floats, labels: object, threshold: float = 0.5) -> dict[str, float]:
    labels_N = np.asarray(labels, dtype=np.int64)
    found = metrics_of(probabilities, labels_N, threshold, np.ones((1, len(labels_N))))
    return {name: float(value[0]) for name, value in found.items()}


def simulated(rng: np.random.Generator, num_cases: int, step: float = 0.0) -> tuple[Floats, Labels]:
    """Two classes, scores rounded to `step` so that many are equal; both classes are there."""
    labels = (rng.random(num_cases) < 0.3).astype(np.int64)
    labels[:2] = 0, 1
    score = 1 / (1 + np.exp(-(rng.normal(size=num_cases) + 1.2 * labels - 1)))
    return two_classes(np.round(score / step) * step if step else score), labels


@pytest.mark.parametrize("step", [0.0, 0.1, 0.25])
@pytest.mark.parametrize("num_cases", [7, 40, 200])
def test_two_classes_agree_with_scikit_learn(num_cases: int, step: float) -> None:
    rng = np.random.default_rng(num_cases)
    for _ in range(5):
        probabilities, labels = simulated(rng, num_cases, step)
        score, predicted = probabilities[:, 1], (probabilities[:, 1] >= 0.3).astype(int)
        found = value_of(probabilities, labels, 0.3)
        expected = {
            "auroc": sk.roc_auc_score(labels, score),
            "auprc": sk.average_precision_score(labels, score),
            "prevalence": labels.mean(),
            "brier": sk.brier_score_loss(labels, score),
            "balanced_accuracy": sk.balanced_accuracy_score(labels, predicted),
            "sensitivity": sk.recall_score(labels, predicted),
            "specificity": sk.recall_score(labels, predicted, pos_label=0),
            "precision": sk.precision_score(labels, predicted, zero_division=np.nan),
            "f1": sk.f1_score(labels, predicted),
            "f05": sk.fbeta_score(labels, predicted, beta=0.5),
            "accuracy": sk.accuracy_score(labels, predicted),
        }
        assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_three_classes_agree_with_scikit_learn() -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 3, 90)
    probabilities = np.round(rng.dirichlet((1, 1, 1), 90), 1)  # with ties
    probabilities[:, 2] = np.clip(1 - probabilities[:, 0] - probabilities[:, 1], 0, 1)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    predicted = predict_classes(probabilities, threshold=0.9)  # of no account
    assert np.array_equal(predicted, probabilities.argmax(axis=1))
    found = value_of(probabilities, labels, 0.9)
    one_hot = np.eye(3)[labels]
    expected = {
        "auroc": sk.roc_auc_score(labels, probabilities, multi_class="ovr", average="macro"),
        "auprc": sk.average_precision_score(one_hot, probabilities, average="macro"),
        "prevalence": 1 / 3,
        "brier": sk.brier_score_loss(labels, probabilities, labels=[0, 1, 2], scale_by_half=True),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, predicted),
        "sensitivity": sk.recall_score(labels, predicted, average="macro"),
        "precision": sk.precision_score(labels, predicted, average="macro"),
        "f1": sk.f1_score(labels, predicted, average="macro"),
        "f05": sk.fbeta_score(labels, predicted, beta=0.5, average="macro"),
        "accuracy": sk.accuracy_score(labels, predicted),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    specificities = [sk.recall_score(labels == k, predicted == k, pos_label=False) for k in range(3)]
    assert found["specificity"] == pytest.approx(np.mean(specificities))
    assert np.array_equal(confusion_matrix(predicted, labels, 3), sk.confusion_matrix(labels, predicted))


def test_a_class_that_a_site_lacks_is_left_out() -> None:
    rng = np.random.default_rng(4)
    labels, probabilities = rng.integers(0, 2, 50), rng.dirichlet((1, 1, 1), 50)
    found = value_of(probabilities, labels)
    per_class = [sk.roc_auc_score(labels == k, probabilities[:, k]) for k in range(2)]
    assert found["auroc"] == pytest.approx(np.mean(per_class))
    recalls = [np.mean(probabilities.argmax(1)[labels == k] == k) for k in range(2)]
    assert found["sensitivity"] == pytest.approx(np.mean(recalls))
    assert found["prevalence"] == pytest.approx(0.5)


def test_weights_are_copies_of_cases() -> None:
    rng = np.random.default_rng(5)
    probabilities, labels = simulated(rng, 60, step=0.05)
    counts = rng.integers(0, 4, size=(3, 60))
    counts[:, :2] = 1  # both classes stay
    weighted = metrics_of(probabilities, labels, 0.4, counts.astype(np.float64))
    for row, count in enumerate(counts):
        copied = value_of(np.repeat(probabilities, count, axis=0), np.repeat(labels, count), 0.4)
        assert {name: value[row] for name, value in weighted.items()} == pytest.approx(copied, abs=1e-7, nan_ok=True)


def test_calibration_error_by_hand() -> None:
    # Bins [0.1, 0.2) with 0.12 and 0.18, one of them positive; [0.9, 1] with 0.9 and 1, both positive.
    found = value_of(two_classes([0.12, 0.18, 0.9, 1.0]), [0, 1, 1, 1])
    gaps, variances = np.array([1 - 0.30, 2 - 1.9]), np.array([0.12 * 0.88 + 0.18 * 0.82, 0.9 * 0.1])
    true = gaps * math.sqrt(((gaps**2 - variances) / (gaps**2).sum()).sum())  # without the share that chance explains
    by_chance = [
        foldnorm.mean(true / math.sqrt(v), scale=math.sqrt(v)) - true for true, v in zip(true, variances, strict=True)
    ]
    assert found["ece"] == pytest.approx((gaps.sum() - sum(by_chance)) / 4)


@pytest.mark.parametrize("slope", [0.5, 1.0, 2.0])
def test_calibration_slope_is_that_of_a_logistic_regression(slope: float) -> None:
    rng = np.random.default_rng(6)
    logit = rng.normal(-1, 1.2, 500)
    labels = (rng.random(500) < 1 / (1 + np.exp(-slope * logit))).astype(float)
    score = 1 / (1 + np.exp(-logit))
    found, intercept = calibration_of(score, labels, np.ones((1, 500)))
    oracle = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(logit[:, None], labels)
    assert found[0] == pytest.approx(oracle.coef_[0, 0], abs=1e-4)
    # In the large: the mean of the shifted probabilities is the share of positive cases.
    assert np.mean(1 / (1 + np.exp(-(logit + intercept[0])))) == pytest.approx(labels.mean(), abs=1e-8)


def test_calibration_of_weighted_cases_is_statsmodels() -> None:
    rng = np.random.default_rng(8)
    logit = rng.normal(-0.5, 1.5, 60)
    labels = (rng.random(60) < 0.4).astype(float)
    weights = rng.integers(0, 4, (3, 60)).astype(float)
    slopes, intercepts = calibration_of(1 / (1 + np.exp(-logit)), labels, weights)
    for found, (design, offset, column) in (
        (slopes, (np.stack([np.ones(60), logit], axis=1), np.zeros(60), 1)),
        (intercepts, (np.ones((60, 1)), logit, 0)),
    ):
        for value, weights_N in zip(found, weights, strict=True):
            model = sm.GLM(labels, design, family=sm.families.Binomial(), offset=offset, freq_weights=weights_N)
            assert value == pytest.approx(model.fit(tol=1e-12).params[column], rel=1e-7)


def test_calibration_slope_where_one_case_overlaps_still_converges() -> None:
    score = np.array([0.01, 0.02, 0.03, 0.97, 0.98, 0.99, 0.5, 0.51])
    labels = np.array([0, 0, 0, 1, 1, 1, 1, 0.0])
    slope, _ = calibration_of(score, labels, np.ones((1, 8)))
    logit = np.log(score / (1 - score))
    oracle = LogisticRegression(C=np.inf, tol=1e-12, max_iter=10_000).fit(logit[:, None], labels)
    assert slope[0] == pytest.approx(oracle.coef_[0, 0], rel=1e-3)


@pytest.mark.parametrize(
    ("score", "labels", "undefined"),
    [
        ([0.2, 0.7, 0.4], [0, 0, 0], {"auroc", "auprc", "sensitivity", "balanced_accuracy", "calibration_slope",
                                      "calibration_intercept"}),
        ([0.2, 0.7, 0.4], [1, 1, 1], {"auroc", "auprc", "specificity", "balanced_accuracy", "calibration_slope",
                                      "calibration_intercept"}),
        ([0.1, 0.2, 0.4], [0, 1, 0], {"precision"}),
        ([0.1, 0.2, 0.9], [0, 0, 1], {"calibration_slope"}),  # apart
        ([0.3, 0.3, 0.3], [0, 0, 1], {"calibration_slope", "precision"}),  # all scores equal
        ([0.1, 0.2], [0, 0], {"auroc", "auprc", "sensitivity", "precision", "f1", "f05", "balanced_accuracy",
                              "calibration_slope", "calibration_intercept"}),
    ],
)  # fmt: skip
def test_what_is_undefined(score: list[float], labels: list[int], undefined: set[str]) -> None:
    found = value_of(two_classes(score), labels)
    assert {name for name, value in found.items() if math.isnan(value)} == undefined
    estimates = measure(two_classes(score), np.array(labels), list("abc")[: len(labels)], 0.5)
    assert {name for name, estimate in estimates.items() if not estimate.num_cases} == undefined


def test_a_perfect_and_a_useless_model() -> None:
    assert value_of(two_classes([0.0, 0.0, 1.0]), [0, 0, 1])["auroc"] == 1.0
    assert value_of(two_classes([0.4] * 4), [0, 1, 0, 0])["auroc"] == 0.5
    assert value_of(two_classes([0.4] * 4), [0, 1, 0, 0])["auprc"] == 0.25  # the prevalence


def test_f_of_nothing_right_is_zero() -> None:
    found = value_of(two_classes([0.9, 0.1, 0.2]), [0, 1, 0])
    assert (found["f1"], found["f05"], found["precision"], found["sensitivity"]) == (0, 0, 0, 0)


def test_no_case_is_nothing() -> None:
    estimates = measure(np.zeros((0, 2)), np.zeros(0, np.int64), [], 0.5)
    assert list(estimates) == list(CLASSIFICATION_METRICS)
    assert {estimate.num_cases for estimate in estimates.values()} == {0}


@pytest.mark.parametrize(
    ("probabilities", "labels", "reason"),
    [
        (np.full((3, 1), 1.0), [0, 0, 0], "two classes"),
        (two_classes([0.1, 0.2, 0.3]), [0, 1], "3 labels"),
        (two_classes([0.1, 0.2, 1.3]), [0, 1, 1], "between 0 and 1"),
        (two_classes([0.1, 0.2, math.nan]), [0, 1, 1], "between 0 and 1"),
        (np.full((3, 2), 0.4), [0, 1, 1], "add up to 1"),
        (two_classes([0.1, 0.2, 0.3]), [0, 1, 2], "labels from 0 to 1"),
        (two_classes([0.1, 0.2, 0.3]), [0, 1, -1], "labels from 0 to 1"),
    ],
)
def test_scores_that_no_model_answers_are_refused(probabilities: Floats, labels: list[int], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        measure(probabilities, np.array(labels), ["a", "b", "c"], 0.5)


def test_visits_of_a_patient_that_agree_tell_no_more_than_one() -> None:
    probabilities, labels = simulated(np.random.default_rng(8), 80)
    alone = [f"p{number}" for number in range(80)]
    once = measure(probabilities, labels, alone, 0.4)
    four = np.repeat(np.arange(80), 4)
    visits = measure(probabilities[four], labels[four], [alone[index] for index in four], 0.4)
    people = measure(probabilities[four], labels[four], list(map(str, range(320))), 0.4)
    for name in ("auroc", "auprc", "brier", "sensitivity", "precision", "f1", "f05", "calibration_intercept"):
        assert visits[name].mean == pytest.approx(once[name].mean)
        assert visits[name].standard_error == pytest.approx(once[name].standard_error, rel=0.1), name
        assert people[name].standard_error == pytest.approx(once[name].standard_error / 2, rel=0.15), name
        assert visits[name].num_patients == once[name].num_patients == people[name].num_patients / 4


def test_work_in_parts_gives_the_same_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    probabilities, labels = simulated(np.random.default_rng(9), 50)
    patients = list(map(str, range(50)))
    whole = measure(probabilities, labels, patients, 0.4)
    monkeypatch.setattr("msfl_common.metrics.classification._CHUNK_VALUES", 50 * 7)
    parts = measure(probabilities, labels, patients, 0.4)
    for name, estimate in whole.items():
        assert parts[name].ci95_high == pytest.approx(estimate.ci95_high, abs=1e-9, nan_ok=True)


def test_intervals_of_shares_are_wilsons_and_know_whose_they_are() -> None:
    score = [0.9, 0.8, 0.7, 0.2, 0.6, 0.4, 0.3, 0.1, 0.1, 0.1]
    labels = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0])
    found = measure(two_classes(score), labels, list(map(str, range(10))), 0.5)
    for name, right, total in (("sensitivity", 3, 4), ("specificity", 5, 6), ("precision", 3, 4), ("accuracy", 8, 10)):
        expected = proportion_confint(right, total, method="wilson")
        assert (found[name].ci95_low, found[name].ci95_high) == pytest.approx(expected), name
        assert (found[name].num_patients, found[name].num_cases) == (total, 10)
    assert found["auroc"].num_patients == found["auprc"].num_patients == 4


def test_a_perfect_ranking_of_three_patients_is_not_certain() -> None:
    found = measure(two_classes([0.2, 0.3, 0.9]), np.array([0, 0, 1]), list("abc"), 0.5)["auroc"]
    assert found.mean == found.ci95_high == 1.0
    assert found.ci95_low < 0.5
    assert found.num_patients == 1


def test_auroc_spreads_as_hanley_and_mcneil_say() -> None:
    # Their example (Radiology 1982): an area of .893 from 58 normal and 51 abnormal cases has a standard error of .032.
    score = np.concatenate([np.linspace(0, 1, 58), np.linspace(0.4, 1.2, 51)]) / 1.2
    labels = np.repeat([0, 1], [58, 51])
    cases = SiteCases(Scores(two_classes(score), labels, 0.5, np.ones((1, 109))), np.arange(109))
    area = by_pairs(score, labels)
    first, second = area / (2 - area), 2 * area**2 / (1 + area)
    variance = (area * (1 - area) + 50 * (first - area**2) + 57 * (second - area**2)) / (51 * 58)
    assert of_auroc(cases).effective == pytest.approx(area * (1 - area) / variance, rel=0.05)


def test_standard_errors_of_the_calibration_are_statsmodels() -> None:
    rng = np.random.default_rng(14)
    logit = rng.normal(size=120)
    outcome = (rng.random(120) < 1 / (1 + np.exp(-0.7 * logit))).astype(float)
    score = 1 / (1 + np.exp(-logit))
    slope = sm.Logit(outcome, sm.add_constant(logit)).fit(disp=0)
    intercept = sm.GLM(outcome, np.ones(120), family=sm.families.Binomial(), offset=logit).fit()
    assert standard_errors(score, outcome, np.arange(120)) == pytest.approx((slope.bse[1], intercept.bse[0]), rel=1e-4)
    together = np.repeat(np.arange(120), 3)  # each case three times, as visits of one patient
    thrice = standard_errors(score[together], outcome[together], together)
    robust = sm.Logit(outcome[together], sm.add_constant(logit[together])).fit(
        disp=0, cov_type="cluster", cov_kwds={"groups": together, "use_correction": False}
    )
    fewest = min(outcome.sum(), 120 - outcome.sum())
    assert thrice[0] == pytest.approx(robust.bse[1] * math.sqrt(fewest / (fewest - 1)), rel=1e-4)


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    score = np.random.default_rng(15).random(30)
    labels = np.arange(30) % 2
    cases = SiteCases(Scores(two_classes(score), labels, 0.5, np.ones((1, 30))), np.arange(30))
    squares = (score - labels) ** 2
    assert jackknife_errors(cases, ["brier"])["brier"] == pytest.approx(squares.std(ddof=1) / math.sqrt(30))


def test_one_patient_has_no_interval() -> None:
    estimates = measure(two_classes([0.1, 0.6, 0.3]), np.array([0, 1, 1]), ["a"] * 3, 0.5)
    assert estimates["auroc"].mean == 1.0
    assert math.isnan(estimates["auprc"].standard_error)
    assert estimates["auroc"].num_patients == 1


def test_of_three_classes_the_jackknife_tells() -> None:
    rng = np.random.default_rng(16)
    probabilities = rng.dirichlet(np.ones(3), 90)
    found = measure(probabilities, np.arange(90) % 3, list(map(str, range(90))), 0.5)
    shares = {name for name, metric in CLASSIFICATION_METRICS.items() if metric.spread == "share"}
    assert all(found[name].ci95_low < found[name].mean < found[name].ci95_high for name in shares)
    assert {name for name, one in found.items() if math.isfinite(one.ci95_low)} == shares
    assert found["sensitivity"].num_patients == 30


def test_what_describes_the_patients_or_is_biased_by_chance_has_no_interval() -> None:
    probabilities, labels = simulated(np.random.default_rng(17), 60)
    found = measure(probabilities, labels, list(map(str, range(60))), 0.4)
    assert {name for name, one in found.items() if math.isnan(one.ci95_low)} == {"prevalence", "ece"}


@pytest.mark.parametrize("num_cases", [40, 100, 400])
def test_calibration_error_of_a_calibrated_model_is_near_none(num_cases: int) -> None:
    rng = np.random.default_rng(11)
    found = []
    for _ in range(60):
        score = rng.beta(1, 3, num_cases)
        found.append(value_of(two_classes(score), (rng.random(num_cases) < score).astype(int))["ece"])
    assert -0.01 < np.mean(found) < 0.04
    assert min(found) < 0 < max(found)


def test_calibration_error_of_a_model_that_is_far_off_stays() -> None:
    rng = np.random.default_rng(12)
    score = rng.uniform(0.5, 0.9, 400)
    found = value_of(two_classes(score), (rng.random(400) < score - 0.3).astype(int))["ece"]
    assert found == pytest.approx(0.3, abs=0.05)


def test_the_registry_knows_every_metric_once() -> None:
    assert not set(METRICS) & set(CLASSIFICATION_METRICS)
    assert list(ALL_METRICS) == [
        *METRICS,
        *NATIVE_METRICS,
        *strata_of("lesion-segmentation", METRICS),
        *NEW_LESION_METRICS,
        *NEW_LESION_NATIVE_METRICS,
        *CLASSIFICATION_METRICS,
        *strata_of("classification", CLASSIFICATION_METRICS),
        *REGRESSION_METRICS,
        *(name for metrics in CLASS_METRICS.values() for name in metrics),
    ]
    assert set(threshold_metrics()) < set(CLASSIFICATION_METRICS)
    for task, names in HEADLINE.items():
        assert set(names) < set(TASK_METRICS[task])


def by_pairs(score: Floats, labels: Labels) -> float:
    pairs = [(p > n) + 0.5 * (p == n) for p in score[labels == 1] for n in score[labels == 0]]
    return float(np.mean(pairs))


@pytest.mark.parametrize("make", [np.ones, np.zeros])
def test_auroc_is_the_share_of_ordered_pairs(make: Callable[[int], Floats]) -> None:
    probabilities, labels = simulated(np.random.default_rng(12), 30, step=0.2)
    probabilities[5:9, 1] = make(4)
    probabilities[:, 0] = 1 - probabilities[:, 1]
    assert value_of(probabilities, labels)["auroc"] == pytest.approx(by_pairs(probabilities[:, 1], labels))


def test_an_intercept_counts_all_patients_and_a_slope_those_of_the_smaller_class() -> None:
    """An interval that is shown where the positive happen to be many would be shown where it is off by chance."""
    score_N = np.linspace(0.1, 0.9, 30)
    labels_N = (np.arange(30) % 5 == 0).astype(np.int64)
    found = measure(np.stack([1 - score_N, score_N], axis=1), labels_N, [str(number) for number in range(30)], 0.5)
    assert (found["calibration_intercept"].num_patients, found["calibration_slope"].num_patients) == (30, 6)
