"""Layouts: a sum over sites is what all cases together would give, and is held against what cases can give."""

from __future__ import annotations

import numpy as np
import pytest

from msfl_common.config.study import Harmonization, StudyConfig
from msfl_common.errors import UpdateError
from msfl_common.harmonization import Moments, Residuals
from msfl_common.messages.layouts import Layout, moments_layout, residuals_layout, sum_of, update_layout
from msfl_common.messages.network_layout import FlatUpdate, network_layout
from msfl_common.messages.records import ModelUpdate
from msfl_common.models.weights import Weights
from msfl_common.strategies.fedavg import FedAvg

RNG = np.random.default_rng(5)
STUDY = StudyConfig(name="net")
BEFORE: Weights = {
    "conv.weight": RNG.normal(size=(3, 4)).astype(np.float32),
    "bn.running_var": np.array([900.0, 1.0], np.float32),
}
CASES = {"a": 12, "b": 5, "c": 70}
HARMONIZATION = Harmonization(method="combat", features=("brainstem_ml", "brain_volume_ml"), covariates=("age", "sex"))


def updates() -> dict[str, ModelUpdate]:
    return {
        site: ModelUpdate(
            {name: (value + RNG.normal(0, 0.1, value.shape)).astype(np.float32) for name, value in BEFORE.items()},
            num_cases,
            float(RNG.uniform(0.1, 2)),
            float(RNG.uniform(10, 5000)),
        )
        for site, num_cases in CASES.items()
    }


def test_a_networks_sum_is_the_mean_by_cases() -> None:
    given = updates()
    layout = update_layout(STUDY, BEFORE)
    found = layout.decode(sum_of(layout, given.values(), 30))
    total = sum(CASES.values())
    assert found.num_cases == total
    assert found.train_loss == pytest.approx(sum(u.num_cases * u.train_loss for u in given.values()) / total, abs=1e-6)
    assert found.seconds == pytest.approx(np.mean([update.seconds for update in given.values()]), abs=1e-5)
    for name, like in BEFORE.items():
        mean = sum(u.num_cases * u.weights[name].astype(np.float64) for u in given.values()) / total
        assert found.weights[name].dtype == like.dtype
        np.testing.assert_allclose(found.weights[name], mean.astype(np.float32), rtol=1.3e-7)


def test_the_sum_of_one_is_its_update() -> None:
    given = updates()["a"]
    layout = update_layout(STUDY, BEFORE)
    found = layout.decode(layout.encode(given, 3))
    for name, value in given.weights.items():
        np.testing.assert_allclose(found.weights[name], value, rtol=1.3e-7)
    assert (found.num_cases, found.seconds) == (given.num_cases, pytest.approx(given.seconds, abs=1e-5))


def test_a_weight_that_goes_too_far_is_named() -> None:
    given = updates()["c"]
    given.weights["conv.weight"][1, 1] += 1000.0
    with pytest.raises(UpdateError, match=r"conv\.weight, times cases: expected values below"):
        update_layout(STUDY, BEFORE).encode(given, 30)


def test_a_sum_of_no_whole_number_of_cases_is_refused() -> None:
    layout = update_layout(STUDY, BEFORE)
    total = layout.encode(updates()["a"], 3)
    total[0, -4] += np.uint64(1)
    with pytest.raises(UpdateError, match="cases: expected a whole number"):
        layout.decode(total)


def moments(num_cases: int) -> Moments:
    z_NQ, y_NP = RNG.normal(size=(num_cases, 2)), RNG.normal(size=(num_cases, 2))
    return Moments(num_cases, 2, z_NQ.T @ z_NQ, z_NQ.T @ y_NP)


def test_sums_of_a_harmonization_are_those_of_all_sites() -> None:
    first = [moments(num_cases) for num_cases in CASES.values()]
    layout = moments_layout(HARMONIZATION)
    found = layout.decode(sum_of(layout, first, 3))
    assert (found.num_cases, found.num_scanners) == (87, 6)
    np.testing.assert_allclose(found.covariance_QQ, sum(one.covariance_QQ for one in first), rtol=1e-14)
    np.testing.assert_allclose(found.cross_QP, sum(one.cross_QP for one in first), rtol=1e-14)
    assert np.array_equal(found.covariance_QQ, found.covariance_QQ.T)

    second = [Residuals(num, RNG.normal(size=2), RNG.uniform(size=2), 2) for num in CASES.values()]
    of_second = residuals_layout(HARMONIZATION)
    pooled = of_second.decode(sum_of(of_second, second, 3))
    assert (pooled.num_cases, pooled.num_scanners) == (87, 6)
    np.testing.assert_allclose(pooled.squares_P, sum(one.squares_P for one in second), rtol=1e-14)
    np.testing.assert_allclose(pooled.intercepts_P, sum(one.intercepts_P for one in second), rtol=1e-14)


def refused(layout: Layout[Moments], value: Moments, fault: str) -> None:
    with pytest.raises(UpdateError, match=fault):
        layout.decode(layout.encode(value, 3))


def test_sums_that_no_cases_give_are_refused() -> None:
    good, layout = moments(9), moments_layout(HARMONIZATION)
    refused(layout, Moments(9, 2, -good.covariance_QQ, good.cross_QP), "negative variance")
    refused(layout, Moments(1, 2, good.covariance_QQ, good.cross_QP), "scanners: expected a whole number")
    second = residuals_layout(HARMONIZATION)
    with pytest.raises(UpdateError, match="negative sum of squares"):
        second.decode(second.encode(Residuals(9, np.zeros(2), -np.ones(2), 2), 3))


def test_many_updates_added_at_a_time_are_the_sum_of_each_alone() -> None:
    before = {"conv": RNG.normal(size=(70, 500)).astype(np.float32), **BEFORE}
    layout = network_layout(FedAvg(), before)
    given = [
        ModelUpdate({n: v + RNG.normal(0, 0.1, v.shape).astype(np.float32) for n, v in before.items()}, 3 + n, 1.0, 1.0)
        for n in range(19)
    ]
    flat = [np.concatenate([value.ravel() for value in one.weights.values()]) for one in given]
    for reach in (1.0, np.inf):  # bounds that are known, and that have to be looked for
        each = (FlatUpdate(values, (one.num_cases, 1.0, 1.0), reach) for one, values in zip(given, flat, strict=True))
        np.testing.assert_array_equal(layout.total(each, 30), sum_of(layout, given, 30))
    flat[18][70 * 500 + 3] += 1e6
    each = (FlatUpdate(values, (one.num_cases, 1.0, 1.0)) for one, values in zip(given, flat, strict=True))
    with pytest.raises(UpdateError, match=r"conv\.weight, times cases"):
        layout.total(each, 30)
