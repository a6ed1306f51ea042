"""Paired differences: intervals that cover, p-values that agree with them, and their correction."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from statsmodels.stats.multitest import multipletests

from msfl_common.metrics import paired
from msfl_common.metrics.paired import Stratum, holm, measure
from msfl_server.research.arms.measured import difference, over_sites
from msfl_server.research.arms.scores import SiteScores


def visits(values: NDArray[np.float64], patients: NDArray[np.int64]) -> SiteScores:
    return SiteScores(tuple(f"p{one}" for one in patients), {"dsc": values})


def sites_of(rng: np.random.Generator, effect: float) -> dict[str, Stratum | None]:
    """Two arms at two sites of 8 and 14 patients with two visits each, tested in two seeds; patients vary most."""
    strata: dict[str, Stratum | None] = {}
    for name, count in (("a", 8), ("b", 14)):
        patients = np.repeat(np.arange(count), 2)
        own = rng.normal(effect, 0.10, count)[patients]
        seeds = range(2)
        first = {seed: visits(own + rng.normal(0.5, 0.02, len(patients)), patients) for seed in seeds}
        second = {seed: visits(rng.normal(0.5, 0.02, len(patients)), patients) for seed in seeds}
        strata[name] = difference("dsc", first, second)
    return strata


def test_intervals_cover_the_truth_in_95_of_100_cohorts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paired, "NUM_RESAMPLES", 600)
    rng, held, sizes = np.random.default_rng(3), 0, 200
    for _ in range(sizes):
        found = over_sites(sites_of(rng, 0.03))
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 0.03 <= found.high
    assert 0.90 <= held / sizes <= 0.98  # of 1000 cohorts 93.4%; with visits taken for patients, 78%


def test_p_is_below_5_of_100_where_the_interval_leaves_zero_out() -> None:
    rng = np.random.default_rng(4)
    for effect in (0.0, 0.03, 0.05, 0.06, 0.08, 0.2):
        found = over_sites(sites_of(rng, effect))
        assert found is not None
        assert found.p is not None
        assert found.low is not None
        assert found.high is not None
        assert (found.p < 0.05) == (found.low > 0 or found.high < 0)
        assert found.num_patients == 22


def test_an_arm_against_itself_differs_by_nothing() -> None:
    patients = np.arange(9)
    one = {0: visits(np.linspace(0.2, 0.9, 9), patients)}
    stratum = difference("dsc", one, one)
    assert stratum is not None
    assert measure([stratum]) == paired.Measured(0.0, 0.0, 0.0, 1.0, 9)


def test_of_fewer_than_six_patients_there_is_no_interval() -> None:
    stratum = difference("dsc", {0: visits(np.linspace(0.2, 0.9, 10), np.repeat(np.arange(5), 2))}, None)
    assert stratum is not None
    found = measure([stratum])
    assert (found.value, found.low, found.p, found.num_patients) == (pytest.approx(0.55), None, None, 5)


def test_only_the_seeds_and_patients_that_both_arms_have_are_compared() -> None:
    patients = np.arange(6)
    first = {0: visits(np.full(6, 0.6), patients), 1: visits(np.full(6, 0.9), patients)}
    second = {0: visits(np.full(6, 0.5), patients), 2: visits(np.zeros(6), patients)}
    stratum = difference("dsc", first, second)
    assert stratum is not None
    assert measure([stratum]).value == pytest.approx(0.1)
    assert difference("dsc", {0: first[0]}, {0: visits(np.full(6, 0.5), patients + 1)}) is None


def test_an_undefined_case_is_left_out_of_the_mean() -> None:
    stratum = difference("dsc", {0: visits(np.array([np.nan, 0.2, 0.4]), np.arange(3))}, None)
    assert stratum is not None
    assert stratum.statistic(np.ones((1, 3)))[0] == pytest.approx(0.3)


def test_auroc_under_weights_is_that_of_the_repeated_cases() -> None:
    rng = np.random.default_rng(5)
    labels, positive = rng.integers(0, 2, 30), rng.random(30)
    scores = SiteScores(tuple(map(str, range(30))), {}, labels, np.stack([1 - positive, positive], axis=1))
    counts = rng.integers(0, 3, 30)
    found = scores.values("auroc", counts[None].astype(np.float64))[0]
    assert found == pytest.approx(roc_auc_score(np.repeat(labels, counts), np.repeat(positive, counts)))


def test_corrected_as_statsmodels_does() -> None:
    values = {str(number): p for number, p in enumerate((0.001, 0.2, 0.013, 0.04, 0.7, 0.013))}
    expected = multipletests(list(values.values()), method="holm")[1]
    assert [holm(values)[name] for name in values] == pytest.approx(list(expected))
