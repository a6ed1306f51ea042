"""Curves and areas from groups, against cases and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from msfl_common.metrics.classification_curves import (
    auprc,
    auroc,
    brier,
    calibration_curve,
    calibration_error,
    choose_threshold,
    pool_score_bins,
    precision_recall_curve,
    roc_curve,
)
from msfl_common.metrics.score_bins import bin_scores
from msfl_common.metrics.scored import gap_without_chance

HAND = np.array([[0.1, 10.0, 0.0], [0.4, 10, 2], [0.8, 5, 4]])


def expand(cells_G3):
    """The cases that groups stand for, each with its group's score."""
    score = np.repeat(cells_G3[:, 0], cells_G3[:, 1].astype(int))
    labels = np.concatenate([np.arange(n) < p for _, n, p in cells_G3]).astype(int)
    return score, labels


def test_roc_by_hand() -> None:
    false, true = roc_curve(HAND)
    assert false == pytest.approx([0, 1 / 19, 9 / 19, 1])
    assert true == pytest.approx([0, 4 / 6, 1, 1])


def test_precision_recall_by_hand() -> None:
    recall, precision = precision_recall_curve(HAND)
    assert len(recall) == 25
    assert (recall[4], precision[4]) == pytest.approx((4 / 6, 4 / 5))
    assert (recall[9], precision[9]) == pytest.approx((5 / 6, 5 / 10))  # half of the second group
    assert precision[-1] == pytest.approx(6 / 25)  # the prevalence
    assert precision[0] == pytest.approx(4 / 5)


def test_areas_of_groups_are_those_of_cases_that_share_a_score() -> None:
    score, labels = expand(HAND)
    assert auroc(HAND) == pytest.approx(roc_auc_score(labels, score))
    assert brier(HAND) == pytest.approx(brier_score_loss(labels, score))
    gaps, variances = np.array([[0 - 0.1 * 10, 2 - 4, 4 - 4]]), np.array([[0.9, 2.4, 0.8]])
    assert calibration_error(HAND) == pytest.approx(gap_without_chance(gaps, variances)[0] / 25)
    assert 0 < calibration_error(HAND) < np.abs(gaps).sum() / 25


def test_sites_are_put_together_by_score() -> None:
    padded = np.zeros((10, 3))
    padded[:2] = (0.1, 5, 1), (0.4, 6, 3)
    other = np.array([[0.4, 5.0, 0.0], [0.3, 7, 7]])
    pooled = pool_score_bins([padded, other])
    np.testing.assert_allclose(pooled, [[0.1, 5, 1], [0.3, 7, 7], [0.4, 11, 3]], rtol=1e-12)
    assert pool_score_bins([]).shape == (0, 3)


def simulated(rng, num_cases, shift=0.0):
    labels = (rng.random(num_cases) < 0.3).astype(int)
    labels[:2] = 0, 1
    score = 1 / (1 + np.exp(-(rng.normal(size=num_cases) + 1.2 * labels - 1 + shift)))
    return score, labels


def test_areas_from_the_groups_of_sites_are_near_those_of_all_cases() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        sites = [simulated(rng, num_cases) for num_cases in (60, 100, 250)]
        score, labels = (np.concatenate(parts) for parts in zip(*sites, strict=True))
        pooled = pool_score_bins(
            bin_scores(np.stack([1 - s, s], 1), y, list(map(str, range(len(s)))), 5)[0] for s, y in sites
        )
        assert auroc(pooled) == pytest.approx(roc_auc_score(labels, score), abs=0.02)
        assert auprc(pooled) == pytest.approx(average_precision_score(labels, score), abs=0.08)
        assert brier(pooled) == pytest.approx(brier_score_loss(labels, score), abs=0.01)


def test_one_outcome_has_no_curve() -> None:
    for positives in (0, 10):
        one = np.array([[0.2, 10.0, positives]])
        assert roc_curve(one)[0].size == 0
        assert precision_recall_curve(one)[0].size == 0
        assert math.isnan(auroc(one))
        assert math.isnan(auprc(one))
        assert choose_threshold(one) == 0.5
    nothing = pool_score_bins([])
    assert math.isnan(auroc(nothing))
    assert math.isnan(brier(nothing))
    assert math.isnan(calibration_error(nothing))
    assert calibration_curve(nothing).shape == (0, 3)


def test_points_of_calibration_keep_every_case() -> None:
    rng = np.random.default_rng(1)
    groups = np.stack([np.sort(rng.random(33)), rng.integers(5, 40, 33), np.zeros(33)], 1)
    groups[:, 2] = rng.integers(0, groups[:, 1])
    points = calibration_curve(groups)
    assert len(points) <= 10
    assert points[:, 1:].sum(axis=0) == pytest.approx(groups[:, 1:].sum(axis=0))
    assert points[:, 0] @ points[:, 1] == pytest.approx(groups[:, 0] @ groups[:, 1])
    assert (np.diff(points[:, 0]) > 0).all()
    assert points[:, 1].max() <= 0.25 * points[:, 1].sum()


def test_the_threshold_is_youdens_by_hand() -> None:
    # J after the top group 4/6 - 1/19 = .614, after two 1 - 9/19 = .526.
    assert choose_threshold(HAND) == pytest.approx((0.8 + 0.4) / 2)
    more = HAND.copy()
    more[1, 2] = 8  # now after two: 1 - 3/13 against 4/12 - 1/13
    assert choose_threshold(more) == pytest.approx((0.4 + 0.1) / 2)


def test_of_equally_good_thresholds_the_highest_is_taken() -> None:
    even = np.array([[0.1, 4.0, 0], [0.5, 4, 2], [0.9, 4, 4]])
    assert choose_threshold(even) == pytest.approx(0.7)


def test_the_chosen_threshold_is_near_the_best_one() -> None:
    rng = np.random.default_rng(2)
    sites = [simulated(rng, num_cases) for num_cases in (150, 300)]
    pooled = pool_score_bins(
        bin_scores(np.stack([1 - s, s], 1), y, list(map(str, range(len(s)))), 5)[0] for s, y in sites
    )
    threshold = choose_threshold(pooled)
    score, labels = simulated(rng, 100_000)

    def youden(at: float) -> float:
        return float(np.mean(score[labels == 1] >= at) - np.mean(score[labels == 0] >= at))

    assert youden(threshold) > max(youden(at) for at in np.linspace(0.05, 0.95, 91)) - 0.05
