"""Means and intervals: hand-computed figures, published figures and coverage in simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import bootstrap
from statsmodels.stats.meta_analysis import combine_effects

from msfl_common.metrics.intervals import Estimate, bootstrap_mean, meta_analysis, pool


def rng(seed=0):
    return np.random.default_rng(seed)


def names(num_patients):
    return [f"p{index}" for index in range(num_patients)]


def estimate(mean, standard_error, num_cases=10):
    margin = 1.959964 * standard_error
    return Estimate(mean, num_cases, standard_error, mean - margin, mean + margin)


class TestBootstrapMean:
    def test_mean_and_count_leave_out_undefined_values(self):
        result = bootstrap_mean([0.2, math.nan, 0.6], ["a", "b", "c"], 200, rng())
        assert result.mean == pytest.approx(0.4)
        assert result.num_cases == 2
        assert result.ci95_low <= 0.4 <= result.ci95_high

    def test_standard_error_is_that_of_the_mean(self):
        values = rng(1).normal(size=40)
        result = bootstrap_mean(values, names(40), 20_000, rng())
        assert result.standard_error == pytest.approx(values.std(ddof=1) / math.sqrt(40), rel=0.03)

    def test_interval_is_scipys_percentile_bootstrap(self):
        values, num_samples = rng(3).gamma(2.0, size=30), 40_000
        found = bootstrap_mean(values, names(30), num_samples, rng())
        oracle = bootstrap(
            (values,), np.mean, n_resamples=num_samples, method="percentile", batch=10_000, random_state=rng(1)
        )
        ends = oracle.confidence_interval
        # Of two runs of so many resamples; BCa, which shifts with the skewness, lies further away.
        assert (found.ci95_low, found.ci95_high) == pytest.approx(tuple(ends), abs=0.015)
        assert found.standard_error == pytest.approx(oracle.standard_error * math.sqrt(30 / 29), rel=0.01)

    def test_the_same_seed_gives_the_same_interval(self):
        values = rng(1).random(12)
        assert bootstrap_mean(values, names(12), 500, rng(7)) == bootstrap_mean(values, names(12), 500, rng(7))

    def test_scans_of_one_patient_do_not_count_as_independent(self):
        of_patients = rng(2).normal(size=15)
        values = np.repeat(of_patients, 4)
        apart = bootstrap_mean(values, names(60), 4000, rng())
        together = bootstrap_mean(values, [f"p{index // 4}" for index in range(60)], 4000, rng())
        assert together.mean == pytest.approx(apart.mean)
        assert together.standard_error == pytest.approx(2 * apart.standard_error, rel=0.1)
        assert together.ci95_high - together.ci95_low > 1.7 * (apart.ci95_high - apart.ci95_low)

    def test_mean_is_over_cases_when_patients_have_several(self):
        result = bootstrap_mean([1.0, 1.0, 1.0, 0.0], ["a", "a", "a", "b"], 200, rng())
        assert result.mean == 0.75
        assert (result.ci95_low, result.ci95_high) == (0.0, 1.0)

    def test_one_patient_has_a_mean_but_no_interval(self):
        result = bootstrap_mean([0.5, 0.7], ["a", "a"], 200, rng())
        assert (result.mean, result.num_cases) == (pytest.approx(0.6), 2)
        assert math.isnan(result.standard_error)
        assert math.isnan(result.ci95_low)

    def test_no_defined_value(self):
        result = bootstrap_mean([math.nan, math.nan], ["a", "b"], 200, rng())
        assert result.num_cases == 0
        assert math.isnan(result.mean)

    def test_refuses_patients_that_do_not_line_up(self):
        with pytest.raises(ValueError, match="one patient per value"):
            bootstrap_mean([0.1, 0.2], ["a"], 200, rng())

    def test_interval_covers_the_truth_about_95_times_in_100(self):
        source = rng(3)
        hits = 0
        for _ in range(400):
            # Skewed and bounded as Dice values are, with two correlated scans a patient.
            of_patients = np.repeat(source.beta(4, 2, size=30), 2)
            values = 0.8 * of_patients + 0.2 * source.beta(4, 2, size=60)
            result = bootstrap_mean(values, [f"p{index // 2}" for index in range(60)], 400, source)
            hits += result.ci95_low <= 4 / 6 <= result.ci95_high
        assert 0.91 <= hits / 400 <= 0.98


class TestPool:
    def test_by_hand(self):
        result = pool({"a": estimate(0.6, 0.03, 30), "b": estimate(0.8, 0.04, 10)})
        standard_error = math.sqrt((0.75 * 0.03) ** 2 + (0.25 * 0.04) ** 2)
        assert result.mean == pytest.approx(0.65)
        assert result.num_cases == 40
        assert result.standard_error == pytest.approx(standard_error)
        assert result.ci95_low == pytest.approx(0.65 - 1.959964 * standard_error)
        assert result.ci95_high == pytest.approx(0.65 + 1.959964 * standard_error)

    def test_equals_the_stratified_bootstrap_of_all_cases_in_one_place(self):
        source = rng(4)
        sites = {name: source.beta(a, 2, size=n) for name, a, n in (("a", 3, 12), ("b", 5, 40), ("c", 2, 25))}
        pooled = pool({s: bootstrap_mean(v, names(len(v)), 20_000, source) for s, v in sites.items()})
        everything = np.concatenate(list(sites.values()))
        replicates = np.zeros(20_000)
        for values in sites.values():
            drawn = source.integers(0, len(values), size=(20_000, len(values)))
            centred = values[drawn] - values.mean()
            # The factor undoes the bootstrap's small-sample bias, as in bootstrap_mean.
            replicates += centred.sum(axis=1) * math.sqrt(len(values) / (len(values) - 1))
        assert pooled.mean == pytest.approx(everything.mean())
        assert pooled.standard_error == pytest.approx(replicates.std() / len(everything), rel=0.02)

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
        truth = (5 * 3 / 5 + 8 * 4 / 6 + 6 * 2 / 4) / 19
        hits = 0
        for _ in range(400):
            sites = {"a": source.beta(3, 2, 5), "b": source.beta(4, 2, 8), "c": source.beta(2, 2, 6)}
            pooled = pool({s: bootstrap_mean(v, names(len(v)), 300, source) for s, v in sites.items()})
            hits += pooled.ci95_low <= truth <= pooled.ci95_high
        assert 0.90 <= hits / 400 <= 0.98


# BCG vaccine against tuberculosis, 13 trials (Colditz et al., JAMA 1994): cases and non-cases, vaccinated
# then not. The figures expected below are those that R's metafor prints for log risk ratios of its `dat.bcg`.
BCG = [
    (4, 119, 11, 128), (6, 300, 29, 274), (3, 228, 11, 209), (62, 13536, 248, 12619), (33, 5036, 47, 5761),
    (180, 1361, 372, 1079), (8, 2537, 10, 619), (505, 87886, 499, 87892), (29, 7470, 45, 7232),
    (17, 1699, 65, 1600), (186, 50448, 141, 27197), (5, 2493, 3, 2338), (27, 16886, 29, 17825),
]  # fmt: skip


class TestMetaAnalysis:
    def test_published_figures(self):
        trials = {}
        for index, (a, b, c, d) in enumerate(BCG):
            variance = 1 / a - 1 / (a + b) + 1 / c - 1 / (c + d)
            trials[f"trial{index}"] = estimate(math.log((a / (a + b)) / (c / (c + d))), math.sqrt(variance))
        result = meta_analysis(trials)
        assert result.num_sites == 13
        assert result.fixed == pytest.approx(-0.4303, abs=1e-4)
        assert result.random == pytest.approx(-0.7141, abs=1e-4)
        assert (result.random_low, result.random_high) == pytest.approx((-1.0644, -0.3638), abs=1e-4)
        assert result.tau2 == pytest.approx(0.3088, abs=1e-4)
        assert result.i2 == pytest.approx(0.9212, abs=1e-4)
        assert result.q == pytest.approx(152.2330, abs=1e-3)

    def test_by_hand(self):
        result = meta_analysis({"a": estimate(0.5, 0.1), "b": estimate(0.8, 0.1)})
        # weights 100 and 100: Q = 100 * 0.15^2 * 2 = 4.5; tau2 = (4.5 - 1) / (200 - 100) = 0.035
        assert result.fixed == pytest.approx(0.65)
        assert result.q == pytest.approx(4.5)
        assert result.tau2 == pytest.approx(0.035)
        assert result.i2 == pytest.approx(3.5 / 4.5)
        assert result.random_high - result.random == pytest.approx(1.959964 * math.sqrt(0.045 / 2))

    def test_sites_that_agree_give_no_heterogeneity(self):
        result = meta_analysis({"a": estimate(0.7, 0.1), "b": estimate(0.7, 0.05)})
        assert (result.tau2, result.i2, result.q) == (0.0, 0.0, pytest.approx(0.0))
        assert (result.random, result.random_low) == (result.fixed, result.fixed_low)

    def test_sites_without_a_usable_standard_error_are_left_out(self):
        odd = {"c": estimate(0.1, 0.0), "d": Estimate(0.2, 1, math.nan, math.nan, math.nan)}
        both = {"a": estimate(0.5, 0.1), "b": estimate(0.8, 0.1)}
        assert meta_analysis({**both, **odd}) == meta_analysis(both)
        assert meta_analysis({"a": estimate(0.5, 0.1), **odd}) is None

    @pytest.mark.parametrize("seed", range(6))
    def test_equals_statsmodels(self, seed):
        draws, num_sites = rng(seed), 3 + seed
        variances = draws.uniform(0.001, 0.02, num_sites)
        means = 0.7 + draws.normal(0, np.sqrt(variances) * (0.3 if seed % 3 == 0 else 2.0))
        found = meta_analysis(
            {f"s{n}": estimate(mean, math.sqrt(v)) for n, (mean, v) in enumerate(zip(means, variances, strict=True))}
        )
        with np.errstate(invalid="ignore"):
            oracle = combine_effects(means, variances, method_re="dl")
            fixed, random, _, _ = oracle.conf_int()  # normal quantiles, as the scale is not estimated
        assert found.q == pytest.approx(oracle.q, rel=1e-9)
        assert found.fixed == pytest.approx(oracle.mean_effect_fe, rel=1e-9)
        assert (found.fixed_low, found.fixed_high) == pytest.approx(fixed, rel=1e-9)
        # statsmodels leaves a negative tau2 and I2 as they are; by DerSimonian and Laird both end at 0.
        assert found.tau2 == pytest.approx(max(0.0, oracle.tau2), rel=1e-9)
        assert found.i2 == pytest.approx(max(0.0, oracle.i2), rel=1e-9)
        assert (oracle.tau2 < 0) == (seed % 3 == 0)
        if oracle.tau2 >= 0:
            assert found.random == pytest.approx(oracle.mean_effect_re, rel=1e-9)
            assert (found.random_low, found.random_high) == pytest.approx(random, rel=1e-9)
        else:
            assert (found.random, found.random_low) == (found.fixed, found.fixed_low)
