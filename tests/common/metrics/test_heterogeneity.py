"""Sites against each other: hand-computed figures, published figures and sites that do not differ."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from statsmodels.stats.meta_analysis import combine_effects

from msfl_common.metrics import heterogeneity
from msfl_common.metrics.heterogeneity import leave_one_out, meta_analysis, prediction_interval
from msfl_common.metrics.intervals import Estimate, mean_estimate, share_estimate


def rng(seed=0):
    return np.random.default_rng(seed)


def estimate(mean, standard_error, num_cases=10, num_patients=None):
    margin = 1.959964 * standard_error
    return Estimate(mean, num_cases, standard_error, mean - margin, mean + margin, num_patients)


def figures_of(found):
    values = dataclasses.asdict(found)
    return [*values.pop("random").values(), *values.pop("likelihood").values(), *values.values()]


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
        assert result.random.mean == pytest.approx(-0.7141, abs=1e-4)
        assert (result.random.low, result.random.high) == pytest.approx((-1.1078, -0.3204), abs=1e-4)
        assert result.p < 1e-20
        assert result.random.tau2 == pytest.approx(0.3088, abs=1e-4)
        assert result.i2 == pytest.approx(0.9212, abs=1e-4)
        assert result.q == pytest.approx(152.2330, abs=1e-3)

    def test_by_hand(self):
        result = meta_analysis({"a": estimate(0.5, 0.1), "b": estimate(0.8, 0.1)})
        # weights 100 and 100: Q = 100 * 0.15^2 * 2 = 4.5; tau2 = (4.5 - 1) / (200 - 100) = 0.035
        assert result.fixed == pytest.approx(0.65)
        assert result.q == pytest.approx(4.5)
        assert result.random.tau2 == pytest.approx(0.035)
        assert result.i2 == pytest.approx(3.5 / 4.5)
        # Hartung and Knapp: the sites' own spread, 0.15 to either side, and t with one degree of freedom
        assert result.random.high - result.random.mean == pytest.approx(12.7062 * 0.15, rel=1e-4)

    def test_sites_that_agree_give_no_heterogeneity(self):
        result = meta_analysis({"a": estimate(0.7, 0.1), "b": estimate(0.7, 0.05)})
        assert (result.random.tau2, result.i2, result.q) == (0.0, 0.0, pytest.approx(0.0))
        assert result.random.mean == pytest.approx(result.fixed)
        assert result.p == pytest.approx(1.0)

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
            oracle = combine_effects(means, variances, method_re="dl", use_t=True)
            _, _, _, random = oracle.conf_int()  # Hartung and Knapp's
        assert found.q == pytest.approx(oracle.q, rel=1e-9)
        assert found.fixed == pytest.approx(oracle.mean_effect_fe, rel=1e-9)
        # statsmodels leaves a negative tau2 and I2 as they are; by DerSimonian and Laird both end at 0.
        assert found.random.tau2 == pytest.approx(max(0.0, oracle.tau2), rel=1e-9)
        assert found.i2 == pytest.approx(max(0.0, oracle.i2), rel=1e-9)
        assert (oracle.tau2 < 0) == (seed % 3 == 0)
        if oracle.tau2 >= 0:
            assert found.random.mean == pytest.approx(oracle.mean_effect_re, rel=1e-9)
            assert (found.random.low, found.random.high) == pytest.approx(random, rel=1e-9)
        else:
            assert found.random.mean == pytest.approx(found.fixed)

    def test_without_each_site_it_is_that_of_the_others(self):
        source = rng(3)
        told = {
            str(n): mean_estimate(source.normal(0.6, 0.1 + 0.1 * n, 5 + n), list("abcdefghi")[: 5 + n])
            for n in range(4)
        }
        found = leave_one_out(told)
        assert list(found) == list(told)
        for left, without in found.items():
            alone = meta_analysis({name: site for name, site in told.items() if name != left})
            assert without.q == pytest.approx(alone.q, rel=0.05)  # other replicates
            assert (without.fixed_low, without.likelihood) == (alone.fixed_low, alone.likelihood)
        assert leave_one_out({"a": told["0"], "b": told["1"]}) == {}

    def test_a_prediction_lies_within_the_bounds_and_about_the_mean(self):
        told = {str(n): estimate(mean, 0.05, num_patients=20) for n, mean in enumerate([0.7, 0.8, 0.9, 0.97])}
        low, high = prediction_interval(told, bounds=(0.0, 1.0))
        found = meta_analysis(told, bounds=(0.0, 1.0))
        assert 0 < low < found.random.low < found.random.mean < found.random.high < high < 1
        assert prediction_interval(dict(list(told.items())[:2])) is None


class TestSitesThatDoNotDiffer:
    @pytest.mark.parametrize(("num_patients", "num_sites"), [(3, 3), (3, 10), (8, 5)])
    def test_q_is_significant_in_5_of_100_and_the_mean_is_covered(self, num_patients, num_sites, monkeypatch):
        monkeypatch.setattr(heterogeneity, "_NUM_REPLICATES", 4_000)
        source, num_runs = rng(num_patients + num_sites), 300
        significant = covered = 0
        for _ in range(num_runs):
            values = 0.1 * source.normal(size=(num_sites, num_patients)) + 0.6
            patients = [str(number) for number in range(num_patients)]
            found = meta_analysis({str(n): mean_estimate(row, patients) for n, row in enumerate(values)})
            significant += found.p < 0.05
            covered += found.random.low <= 0.6 <= found.random.high
        assert significant / num_runs <= 0.07
        assert 0.92 <= covered / num_runs <= 0.98

    def test_a_site_that_is_far_off_is_still_found(self):
        values = rng(1).normal(0, 0.1, size=(4, 6)) + np.array([[0.2], [0.6], [0.6], [0.6]])
        found = meta_analysis({str(n): mean_estimate(row, list("abcdef")) for n, row in enumerate(values)})
        assert found.p < 0.05
        assert found.i2 > 0.5

    def test_shares_of_sites_that_are_all_right_are_compared_too(self):
        found = meta_analysis({"a": share_estimate(1.0, 9, 5, 5), "b": share_estimate(0.8, 9, 5, 5)}, "share")
        assert found.num_sites == 2
        assert 0.2 < found.p < 1

    @pytest.mark.parametrize("error", [5e-324, 1e-200, 1e-160, 2e-17])
    @pytest.mark.parametrize("spread", ["mean", "share"])
    def test_a_standard_error_of_rounding_weighs_nothing(self, error, spread):
        """As of seven cases at .3, or of a site that makes it up, whose weight would be all there is."""
        honest = {"a": mean_estimate([0.5, 0.7, 0.6], list("abc")), "b": mean_estimate([0.4, 0.7, 0.6], list("abc"))}
        same = {"c": Estimate(0.3, 7, error, 0.3, 0.3, 7)}
        assert meta_analysis(honest | same, spread) == meta_analysis(honest, spread)

    @pytest.mark.parametrize("spread", ["mean", "share", "normal"])
    def test_what_sites_make_up_gives_no_figure_that_is_none(self, spread):
        """Errors from nothing to more than there can be, of values at their ends: all sites may be hostile."""
        source = rng(7)
        for _ in range(60):
            told = {
                str(number): Estimate(
                    float(source.choice([0, 0.3, 0.999999999, 1, 1e6, -1e6])),
                    10,
                    10.0 ** source.choice([-8.99, -7, -3, 0, 6, 155, 300]),
                    0.0,
                    1.0,
                    int(source.choice([1, 2, 10, 10**9])),
                )
                for number in range(int(source.integers(2, 6)))
            }
            found = meta_analysis(told, spread)
            assert found is None or all(map(math.isfinite, figures_of(found)))
            assert all(map(math.isfinite, prediction_interval(told, spread) or ()))
            for without in leave_one_out(told, spread).values():
                assert all(map(math.isfinite, figures_of(without)))
        one_takes_all = {"a": Estimate(0.5, 9, 1.1e-9, 0, 1, 3), "b": Estimate(1.0, 9, 1.0, 0, 1, 2)}
        assert meta_analysis(one_takes_all, spread) is None  # divided by 0 before
