"""Calibration as a smooth line with its band: against another program's fit, and how often the band holds the truth."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from msfl_common.metrics.calibration_line import FEWEST_OF_EACH, calibration_groups, calibration_line, has_enough
from msfl_common.metrics.classification_curves import pool_score_bins
from msfl_common.metrics.score_bins import bin_scores

Floats = NDArray[np.float64]


def groups_of(num_cases: int, prevalence: float, slope: float, shift: float, rng: np.random.Generator) -> Floats:
    """Three sites' groups of five patients and more, of scores whose log odds are off by slope and shift."""
    logit = rng.normal(np.log(prevalence / (1 - prevalence)), 1.0, num_cases)
    score = 1 / (1 + np.exp(-logit))
    labels = (rng.random(num_cases) < 1 / (1 + np.exp(-(shift + slope * logit)))).astype(np.int64)
    parts = [
        bin_scores(np.stack([1 - score[own], score[own]], 1), labels[own], [str(number) for number in own], 5)[0]
        for own in np.array_split(np.arange(num_cases), 3)
    ]
    return pool_score_bins(parts)


def test_the_line_is_the_fit_of_another_program() -> None:
    groups = groups_of(400, 0.3, 0.7, 0.2, np.random.default_rng(0))
    line = calibration_line(groups)
    assert line is not None
    logit = np.log(groups[:, 0] / (1 - groups[:, 0]))
    fit = LogisticRegression(C=np.inf, tol=1e-10).fit(
        np.tile(logit, 2)[:, None],
        np.repeat([1, 0], len(logit)),
        np.concatenate([groups[:, 2], groups[:, 1] - groups[:, 2]]),
    )
    at = np.log(line.score_S / (1 - line.score_S))[:, None]
    np.testing.assert_allclose(line.share_S, fit.predict_proba(at)[:, 1], atol=1e-4)
    assert (np.diff(line.share_S) > 0).all()  # no zigzag


@pytest.mark.slow
@pytest.mark.parametrize(("num_cases", "prevalence", "slope", "shift"), [(150, 0.25, 1.0, 0.0), (300, 0.3, 0.6, 0.3)])
def test_the_band_holds_the_truth(num_cases: int, prevalence: float, slope: float, shift: float) -> None:
    rng, held = np.random.default_rng(7), []
    middle = np.log(prevalence / (1 - prevalence))
    for _ in range(200):
        line = calibration_line(groups_of(num_cases, prevalence, slope, shift, rng))
        if line is None:
            continue
        for logit in (middle - 0.67, middle, middle + 0.67):
            score, truth = 1 / (1 + np.exp(-logit)), 1 / (1 + np.exp(-(shift + slope * logit)))
            low, high = (np.interp(score, line.score_S, end) for end in (line.low_S, line.high_S))
            held.append(low <= truth <= high)
    assert len(held) > 500
    assert 0.93 <= np.mean(held) <= 0.975


def test_a_band_is_wider_where_patients_have_several_visits() -> None:
    groups = groups_of(400, 0.3, 1.0, 0.0, np.random.default_rng(0))
    one, three = calibration_line(groups), calibration_line(groups, 3.0)
    assert one is not None
    assert three is not None
    np.testing.assert_allclose(one.share_S, three.share_S)
    assert ((three.high_S - three.low_S) > 1.5 * (one.high_S - one.low_S)).all()


def test_of_too_few_cases_or_of_separated_ones_there_is_no_line() -> None:
    few = np.array([[0.1, 60, FEWEST_OF_EACH - 11], [0.6, 40, 10]])
    assert not has_enough(few)
    assert calibration_line(few) is None
    assert calibration_line(np.array([[0.1, 60, FEWEST_OF_EACH - 10], [0.6, 40, 10]])) is not None
    assert calibration_line(np.array([[0.1, 40, 0], [0.6, 40, 40]])) is None
    assert calibration_line(np.array([[0.3, 80, 30]])) is None
    assert calibration_line(np.zeros((0, 3))) is None


def test_groups_are_large() -> None:
    groups = groups_of(400, 0.3, 1.0, 0.0, np.random.default_rng(0))
    joined = calibration_groups(groups)
    assert 5 <= len(joined) <= 10
    assert min(cases for _, cases, _, _, _ in joined) >= 25
    assert sum(cases for _, cases, _, _, _ in joined) == 400
    assert sum(positives for _, _, positives, _, _ in joined) == groups[:, 2].sum()
    assert all(low < positives / cases < high for _, cases, positives, low, high in joined)
    assert len(calibration_groups(groups, 4.0)) == 2
