"""Random effects: R's metafor, the full multivariate likelihood, and hand-computed figures."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.linalg import null_space
from scipy.optimize import minimize_scalar
from scipy.stats import chi2, multivariate_normal
from tests.common.metrics.test_heterogeneity import BCG

from msfl_common.metrics import random_effects
from msfl_common.metrics.intervals import t95

EFFECTS = np.array([math.log((a / (a + b)) / (c / (c + d))) for a, b, c, d in BCG])
VARIANCES = np.array([1 / a - 1 / (a + b) + 1 / c - 1 / (c + d) for a, b, c, d in BCG])


def test_reml_is_that_of_metafor():
    """`rma(yi, vi, data=dat)` of `dat.bcg`, which is by REML, without and with `test="knha"`."""
    tau2 = random_effects.tau2_by_likelihood(EFFECTS, VARIANCES)
    mean = random_effects.weighted_mean(EFFECTS, VARIANCES, tau2)
    assert tau2 == pytest.approx(0.3132, abs=5e-5)
    assert (mean.mean, mean.error) == pytest.approx((-0.7145, 0.1798), abs=5e-5)
    assert mean.mean / mean.spread_error == pytest.approx(-3.9522, abs=5e-4)


@pytest.mark.parametrize("seed", range(4))
def test_reml_is_the_top_of_the_likelihood_of_contrasts(seed):
    """All contrasts that the mean does not move are normal with the variances and tau2: no weights, no mean."""
    source = np.random.default_rng(seed)
    variances_S = source.uniform(0.2, 3, 6)
    effects_S = source.normal(0, np.sqrt(variances_S + (0, 0.5, 2, 9)[seed]))
    contrasts = null_space(np.ones((1, 6))).T

    def loss(tau2):
        spread = contrasts @ np.diag(variances_S + tau2) @ contrasts.T
        return -multivariate_normal(np.zeros(5), spread).logpdf(contrasts @ effects_S)

    best = minimize_scalar(loss, bounds=(0, 50), method="bounded", options={"xatol": 1e-9}).x
    assert random_effects.tau2_by_likelihood(effects_S, variances_S) == pytest.approx(best, abs=1e-4)


def test_studies_that_agree_have_no_variance_between():
    effects_S, variances_S = np.full(4, 0.5), np.array([0.1, 0.2, 0.3, 0.4])
    assert random_effects.tau2_by_likelihood(effects_S, variances_S) == 0
    assert random_effects.tau2_by_moments(random_effects.cochran_q(effects_S, variances_S), variances_S) == 0
    low, high = random_effects.prediction_by_draws(effects_S, variances_S, 0.0)
    assert low == high == pytest.approx(0.5)


def test_the_prediction_interval_by_t_is_higgins_formula():
    mean = random_effects.weighted_mean(EFFECTS, VARIANCES, 0.3132)
    low, high = random_effects.prediction_by_t(EFFECTS, VARIANCES, 0.3132)
    assert (low + high) / 2 == pytest.approx(mean.mean)
    assert (high - low) / 2 == pytest.approx(t95(11) * math.sqrt(0.3132 + mean.error**2))


def test_draws_of_tau2_are_those_at_which_q_is_chi_squared():
    """Q-profile: the confidence limits of `confint` of metafor for `dat.bcg`, 0.1197 and 1.1115."""
    ends = random_effects._tau2_of(EFFECTS, VARIANCES, chi2.ppf([0.975, 0.025], len(EFFECTS) - 1))
    assert ends == pytest.approx([0.1197, 1.1115], abs=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("tau2", [1.0, 16.0])
def test_a_further_study_lies_in_the_prediction_interval_95_times_in_100(tau2, monkeypatch):
    monkeypatch.setattr(random_effects, "_NUM_REPLICATES", 1_000)
    monkeypatch.setattr(random_effects, "_NUM_GRID", 60)
    source, held, runs = np.random.default_rng(11), 0, 200
    for _ in range(runs):
        variances_S = np.exp(source.uniform(-1.4, 1.4, 6))
        true_S = source.normal(0, math.sqrt(tau2), 7)
        effects_S = source.normal(true_S[:6], np.sqrt(variances_S))
        found = random_effects.tau2_by_moments(random_effects.cochran_q(effects_S, variances_S), variances_S)
        low, high = random_effects.prediction_by_draws(effects_S, variances_S, found)
        held += low <= true_S[6] <= high
    assert held / runs >= 0.91  # of 200 runs at .95, 1 in 200 is below
