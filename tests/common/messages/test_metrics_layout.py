"""Metrics added up over sites are those of the plain study to the bit, and of means what all cases give."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from msfl_common.config.study import StudyConfig
from msfl_common.errors import UpdateError
from msfl_common.messages.layouts import metrics_layout, sum_of
from msfl_common.messages.validation_metrics import ValidationMetrics
from msfl_common.metrics.classification import measure
from msfl_common.metrics.classification_curves import choose_threshold, pool_score_bins
from msfl_common.metrics.intervals import mean_estimate, pool
from msfl_common.metrics.registry import ALL_METRICS
from msfl_common.metrics.score_bins import bin_scores
from msfl_common.metrics.scored import confusion_matrix, predict_classes

SEGMENTATION = StudyConfig(name="lesions", min_patients=2)
SIZES = {"a": 9, "b": 30, "c": 1, "d": 14}


def classification(num_classes: int) -> StudyConfig:
    outcome = {"column": "course", "classes": [f"c{number}" for number in range(num_classes)]}
    settings = {"outcome": outcome, "features": ["brain_volume_ml"], "clinical": [], "model": {"kind": "logistic"}}
    return StudyConfig.model_validate(
        {"name": "courses", "task": "classification", "min_patients": 3, "classification": settings}
    )


def of_cases(seed: int) -> tuple[dict[str, ValidationMetrics], dict[str, np.ndarray]]:
    """Sites that measured cases, one of which has a single patient and another metrics undefined in some."""
    rng, told, values = np.random.default_rng(seed), {}, {}
    for site, size in SIZES.items():
        values[site] = rng.beta(4, 2, size)
        values[site][:2] = np.nan if site == "b" else values[site][:2]
        patients = [f"{site}{number // 2}" for number in range(size)]
        estimates = {"dsc": mean_estimate(values[site], patients, (0, 1))}
        if site != "d":
            estimates["hd95_mm"] = mean_estimate(rng.gamma(2, 8, size), patients, (0, np.inf))
        told[site] = ValidationMetrics(estimates, size, 3.5)
    return told, values


def of_scores(seed: int, num_classes: int) -> dict[str, ValidationMetrics]:
    rng, told = np.random.default_rng(seed), {}
    for site, size in {"a": 40, "b": 90, "c": 25}.items():
        probabilities = rng.dirichlet(np.ones(num_classes), size)
        labels = np.array([rng.choice(num_classes, p=row) for row in probabilities])
        patients = [f"{site}{number // 2}" for number in range(size)]
        confusion = confusion_matrix(predict_classes(probabilities, 0.5), labels, num_classes)
        told[site] = ValidationMetrics(
            {name: one for name, one in measure(probabilities, labels, patients, 0.5).items() if one.num_cases},
            size,
            1.0,
            score_bins=bin_scores(probabilities, labels, patients, 3) * (site != "c"),  # which withholds them
            confusion=confusion * (site != "c"),
        )
    return told


def together(study: StudyConfig, told: Mapping[str, ValidationMetrics]) -> ValidationMetrics:
    layout = metrics_layout(study)
    return layout.decode(sum_of(layout, told.values(), len(told)))


def same_estimates(told: Mapping[str, ValidationMetrics], found: ValidationMetrics) -> None:
    assert set(found.estimates) == {name for metrics in told.values() for name in metrics.estimates}
    for name, estimate in found.estimates.items():
        metric = ALL_METRICS[name]
        of_sites = {site: one.estimates[name] for site, one in told.items() if name in one.estimates}
        plain = pool(of_sites, metric.spread, metric.interval_range)
        behind = min(one.num_patients or 0 for one in of_sites.values())
        if behind < metric.fewest_each * len(told):
            assert (estimate.mean, estimate.num_cases) == (plain.mean, plain.num_cases)
            assert np.isnan(estimate.ci95_low)
        else:
            np.testing.assert_equal(vars(estimate), vars(plain))  # NaN where NaN, all else to the bit
        np.testing.assert_equal(vars(pool({"pooled": estimate}, metric.spread, metric.interval_range)), vars(estimate))


@pytest.mark.parametrize("seed", range(5))
def test_of_a_segmentation_they_are_those_of_all_cases(seed: int) -> None:
    told, values = of_cases(seed)
    found = together(SEGMENTATION, told)
    same_estimates(told, found)
    every = np.concatenate(list(values.values()))
    dsc = found.estimates["dsc"]
    assert dsc.mean == pytest.approx(np.nanmean(every), abs=1e-12)
    assert (dsc.num_cases, dsc.num_patients, dsc.num_sites) == (np.isfinite(every).sum(), 27, 4)
    assert (found.num_cases, found.seconds) == (54, 3.5)
    assert found.estimates["hd95_mm"].num_sites == 3
    assert dsc.ci95_low < dsc.mean < dsc.ci95_high


@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_of_a_classification_curves_and_threshold_are_the_plain_ones(seed: int, num_classes: int) -> None:
    told = of_scores(seed, num_classes)
    found = together(classification(num_classes), told)
    same_estimates(told, found)
    assert found.score_bins is not None
    assert found.confusion is not None
    np.testing.assert_equal(found.confusion, sum(one.confusion for one in told.values() if one.confusion is not None))
    for number, bins in enumerate(found.score_bins):
        plain = pool_score_bins(one.score_bins[number] for one in told.values() if one.score_bins is not None)
        np.testing.assert_array_equal(pool_score_bins([bins]), plain)
        assert choose_threshold(pool_score_bins([bins])) == choose_threshold(plain)
        assert plain[:, 1].sum() == 130
        assert (plain[:, 1] >= 3).all()


def test_sums_that_no_cases_give_are_refused() -> None:
    study, told = classification(2), of_scores(0, 2)
    layout = metrics_layout(study)
    for change, fault in [
        ({"num_cases": 5}, "num_cases: expected a whole number from 1 to 120"),
        ({"confusion": np.full((2, 2), 0.5)}, "confusion: expected whole"),
        ({"confusion": np.full((2, 2), 100.0)}, "confusion: .* at most 155"),
        ({"score_bins": np.array([[[0.5, 2, 1]]])}, "score bins: expected 3 cases or more"),
        ({"score_bins": np.array([[[0.5, 9, 10]]])}, "score bins: expected whole numbers"),
        ({"score_bins": np.array([[[0.5, 900, 10]]])}, "score bins: expected 3 cases or more, 155 at most"),
    ]:
        wrong = [*list(told.values())[1:], ValidationMetrics(**(vars(told["a"]) | change))]
        with pytest.raises(UpdateError, match=fault):
            layout.decode(sum_of(layout, wrong, 3))
    total = sum_of(layout, told.values(), 3)
    total[2, 3 + 12 * 2 + 6] = np.uint64(2**63)
    total[3, 3 + 12 * 2 + 6] = np.uint64(2**63)
    with pytest.raises(UpdateError, match="no variance below 0"):
        layout.decode(total)
