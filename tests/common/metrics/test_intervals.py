"""Means, shares and intervals: hand-computed figures, published figures and coverage in simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.special import expit, logit
from scipy.stats import t as student
from scipy.stats import ttest_1samp
from statsmodels.stats.proportion import proportion_confint

from msfl_common.messages.validation_metrics import ValidationMetrics, check_metrics
from msfl_common.metrics.intervals import (
    Estimate,
    effective_number,
    mean_estimate,
    mean_interval,
    pool,
    share_estimate,
    wilson,
)
from msfl_common.metrics.segmentation import METRICS


def rng(seed=0):
    return np.random.default_rng(seed)


def names(num_patients):
    return [f"p{index}" for index in range(num_patients)]


def estimate(mean, standard_error, num_cases=10, num_patients=None):
    margin = 1.959964 * standard_error
    return Estimate(mean, num_cases, standard_error, mean - margin, mean + margin, num_patients)


class TestMeanEstimate:
    def test_mean_and_counts_leave_out_undefined_values(self):
        result = mean_estimate([0.2, math.nan, 0.6], ["a", "b", "c"])
        assert result.mean == pytest.approx(0.4)
        assert (result.num_cases, result.num_patients) == (2, 2)
        assert result.ci95_low <= 0.4 <= result.ci95_high

    def test_of_one_scan_a_patient_it_is_scipys_t(self):
        values = rng(1).normal(size=7)
        result = mean_estimate(values, names(7))
        assert (result.ci95_low, result.ci95_high) == pytest.approx(tuple(ttest_1samp(values, 0).confidence_interval()))
        assert result.standard_error == pytest.approx(values.std(ddof=1) / math.sqrt(7))

    def test_of_several_scans_it_is_statsmodels_clustered(self):
        source, patients = rng(2), np.array([0, 0, 0, 1, 1, 2, 3, 3, 3, 3, 4, 5, 5])
        values = source.normal(size=6)[patients] + source.normal(size=13)
        oracle = sm.OLS(values, np.ones(13)).fit(
            cov_type="cluster", cov_kwds={"groups": patients, "use_correction": False}
        )
        result = mean_estimate(values, [str(number) for number in patients])
        assert result.standard_error == pytest.approx(oracle.bse[0] * math.sqrt(6 / 5))
        assert result.ci95_high - result.mean == pytest.approx(student.ppf(0.975, 5) * result.standard_error)

    def test_scans_of_one_patient_do_not_count_as_independent(self):
        values = np.repeat(rng(2).normal(size=15), 4)
        apart = mean_estimate(values, names(60))
        together = mean_estimate(values, [f"p{index // 4}" for index in range(60)])
        assert together.mean == pytest.approx(apart.mean)
        assert together.standard_error == pytest.approx(2 * apart.standard_error, rel=0.1)

    def test_between_bounds_it_is_of_the_logit_and_stays_inside(self):
        result = mean_estimate([0.7, 0.9, 1.0, 1.0], names(4), (0.0, 1.0))
        margin = student.ppf(0.975, 3) * result.standard_error / (result.mean * (1 - result.mean))
        expected = expit(logit(result.mean) + np.array([-margin, margin]))
        assert (result.ci95_low, result.ci95_high) == pytest.approx(tuple(expected))
        assert result.ci95_high < 1

    def test_above_a_bound_it_is_of_the_logarithm(self):
        low, high = mean_interval(4.0, 1.0, 9, (0.0, math.inf))
        assert low * high == pytest.approx(16)
        assert math.log(high / 4) == pytest.approx(student.ppf(0.975, 9) / 4)

    @pytest.mark.parametrize("values", [[1.0, 1.0, 1.0], [0.0, 0.0], [0.5, 0.5, 0.5]])
    def test_of_equal_values_nothing_tells_how_others_would_vary(self, values):
        result = mean_estimate(values, names(len(values)), (0.0, 1.0))
        assert math.isnan(result.standard_error)
        assert math.isnan(result.ci95_low)
        check_metrics(ValidationMetrics({"dsc": result}, len(values), 1.0), 1)

    def test_an_extreme_spread_does_not_overflow(self):
        assert mean_interval(1e-9, 1.0, 2, (0.0, 1.0)) == pytest.approx((0.0, 1.0))
        assert mean_interval(1e-9, 1.0, 2, (0.0, math.inf))[1] > 1e200

    @pytest.mark.parametrize("name", METRICS)
    def test_however_far_values_spread_its_figures_are_those_that_a_site_may_send(self, name):
        low, high = METRICS[name].possible_range
        told = mean_estimate([low, low, 0.9 * high], names(3), METRICS[name].interval_range)
        assert low < told.ci95_low < told.mean < told.ci95_high < high
        check_metrics(ValidationMetrics({name: told}, 3, 1.0), 1)

    def test_one_patient_has_a_mean_but_no_interval(self):
        result = mean_estimate([0.5, 0.7], ["a", "a"])
        assert (result.mean, result.num_cases, result.num_patients) == (pytest.approx(0.6), 2, 1)
        assert math.isnan(result.standard_error)
        assert math.isnan(result.ci95_low)

    def test_no_defined_value(self):
        result = mean_estimate([math.nan, math.nan], ["a", "b"])
        assert (result.num_cases, result.num_patients) == (0, 0)
        assert math.isnan(result.mean)

    def test_refuses_patients_that_do_not_line_up(self):
        with pytest.raises(ValueError, match="one patient per value"):
            mean_estimate([0.1, 0.2], ["a"])

    @pytest.mark.parametrize("num_patients", [5, 30])
    def test_interval_covers_the_truth_about_95_times_in_100(self, num_patients):
        source = rng(3)
        hits = 0
        for _ in range(800):
            # Skewed and bounded as Dice values are, with two correlated scans a patient.
            of_patients = np.repeat(source.beta(4, 2, size=num_patients), 2)
            values = 0.8 * of_patients + 0.2 * source.beta(4, 2, size=2 * num_patients)
            patients = [f"p{index // 2}" for index in range(2 * num_patients)]
            result = mean_estimate(values, patients, (0.0, 1.0))
            hits += result.ci95_low <= 4 / 6 <= result.ci95_high
        assert 0.93 <= hits / 800 <= 0.97


class TestShares:
    @pytest.mark.parametrize(("right", "total"), [(0, 5), (3, 4), (40, 50), (9, 9)])
    def test_wilsons_interval_is_statsmodels(self, right, total):
        assert wilson(right / total, total) == pytest.approx(proportion_confint(right, total, method="wilson"))

    @pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
    @pytest.mark.parametrize("effective", [1.2, 6.5, 4000.0])
    def test_the_effective_number_is_read_back_from_mean_and_standard_error(self, share, effective):
        told = share_estimate(share, 10, effective, 5)
        assert effective_number(told) == pytest.approx(effective)
        assert told.standard_error > 0

    @pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
    def test_however_far_a_share_spreads_its_figures_are_those_that_a_site_may_send(self, share):
        told = share_estimate(share, 10, 1e-4, 5)
        assert told == share_estimate(share, 10, 1.0, 5)
        check_metrics(ValidationMetrics({"auprc": told}, 10, 1.0), 1)

    def test_what_rests_on_no_case_has_no_interval(self):
        for effective in (0.0, math.nan, math.inf):
            assert math.isnan(share_estimate(0.5, 4, effective, 2).ci95_low)
        assert math.isnan(effective_number(Estimate(0.5, 4, math.nan, math.nan, math.nan)))

    def test_shares_of_sites_are_pooled_as_one_of_all_their_cases(self):
        told = {"a": share_estimate(1.0, 10, 4, 4), "b": share_estimate(0.75, 10, 4, 4)}
        pooled = pool(told, "share", (0.0, 1.0))
        expected = proportion_confint(7, 8, method="wilson")
        assert (pooled.mean, pooled.num_patients) == (0.875, 8)
        assert (pooled.ci95_low, pooled.ci95_high) == pytest.approx(expected)

    def test_a_site_without_an_interval_counts_its_cases_as_the_others_do(self):
        alone = Estimate(0.5, 10, math.nan, math.nan, math.nan, 1)
        told = {"a": share_estimate(0.8, 20, 16, 16), "b": alone}
        same = {"a": share_estimate(0.8, 20, 16, 16), "b": share_estimate(0.5, 10, 8, 1)}
        assert pool(told, "share").ci95_low == pytest.approx(pool(same, "share").ci95_low)


class TestPool:
    def test_by_hand(self):
        result = pool({"a": estimate(0.6, 0.03, 30), "b": estimate(0.8, 0.04, 10)})
        standard_error = math.sqrt((0.75 * 0.03) ** 2 + (0.25 * 0.04) ** 2)
        assert result.mean == pytest.approx(0.65)
        assert result.num_cases == 40
        assert result.standard_error == pytest.approx(standard_error)
        assert result.ci95_low == pytest.approx(0.65 - 1.959964 * standard_error)
        assert result.ci95_high == pytest.approx(0.65 + 1.959964 * standard_error)

    def test_equals_the_stratified_mean_of_all_cases_in_one_place(self):
        source = rng(4)
        sites = {name: source.beta(a, 2, size=n) for name, a, n in (("a", 3, 12), ("b", 5, 40), ("c", 2, 25))}
        pooled = pool({s: mean_estimate(v, names(len(v))) for s, v in sites.items()})
        everything = np.concatenate(list(sites.values()))
        variance = sum(len(values) * values.var(ddof=1) for values in sites.values()) / len(everything) ** 2
        assert pooled.mean == pytest.approx(everything.mean())
        assert pooled.standard_error == pytest.approx(math.sqrt(variance))

    def test_of_two_sites_it_is_welchs_t(self):
        first, second = rng(6).normal(size=4), rng(7).normal(0, 3, size=6)
        told = {"a": mean_estimate(first, names(4)), "b": mean_estimate(second, names(6))}
        pooled = pool(told)
        parts = np.array([0.16 * first.var(ddof=1) / 4, 0.36 * second.var(ddof=1) / 6])
        freedom = parts.sum() ** 2 / (parts**2 / [3, 5]).sum()
        assert pooled.ci95_high - pooled.mean == pytest.approx(student.ppf(0.975, freedom) * math.sqrt(parts.sum()))

    def test_one_site_is_itself(self):
        alone = estimate(0.7, 0.05)
        assert pool({"a": alone}).standard_error == pytest.approx(alone.standard_error)

    def test_a_site_without_a_case_counts_for_nothing(self):
        nothing = Estimate(math.nan, 0, math.nan, math.nan, math.nan)
        assert pool({"a": estimate(0.7, 0.05), "b": nothing}) == pool({"a": estimate(0.7, 0.05)})
        assert pool({"b": nothing}).num_cases == 0
        assert pool({}).num_cases == 0

    def test_a_site_of_one_patient_borrows_the_case_variance_of_the_others(self):
        lonely = Estimate(0.5, 1, math.nan, math.nan, math.nan)
        result = pool({"a": estimate(0.7, 0.05, 9), "b": lonely})
        case_variance = 9 * 0.05**2
        assert result.mean == pytest.approx(0.68)
        assert result.standard_error == pytest.approx(math.sqrt(0.81 * 0.05**2 + 0.01 * case_variance))
        assert math.isnan(pool({"b": lonely}).standard_error)

    def test_interval_covers_the_truth_with_few_patients_a_site(self):
        source = rng(5)
        truth = (3 * 3 / 5 + 8 * 4 / 6 + 4 * 2 / 4) / 15
        hits = 0
        for _ in range(800):
            sites = {"a": source.beta(3, 2, 3), "b": source.beta(4, 2, 8), "c": source.beta(2, 2, 4)}
            pooled = pool({s: mean_estimate(v, names(len(v)), (0, 1)) for s, v in sites.items()}, "mean", (0.0, 1.0))
            hits += pooled.ci95_low <= truth <= pooled.ci95_high
        assert 0.93 <= hits / 800 <= 0.975


def test_values_that_differ_by_rounding_have_an_interval_in_the_right_order() -> None:
    """0.512 ml in each patient but for the last digit: a coordinator refuses ends the wrong way round."""
    low, high = mean_interval(0.512, 1e-17, 5, (0.0, 20_000.0))
    assert low <= 0.512 <= high
