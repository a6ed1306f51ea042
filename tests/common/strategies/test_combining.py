"""Strategies that act where updates are combined, held to their papers' rules, written anew here, and to Flower's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord
from flwr.serverapp import strategy as flower
from tests.common.strategies.combined_updates import Floats, Update, answers_of, dict_of, drawn, flat, replies

from msfl_common.errors import RunError
from msfl_common.strategies import STRATEGIES
from msfl_common.strategies.base import Arrays
from msfl_common.strategies.bulyan import Bulyan
from msfl_common.strategies.fedadagrad import FedAdagrad
from msfl_common.strategies.fedadam import FedAdam
from msfl_common.strategies.fedyogi import FedYogi
from msfl_common.strategies.geometric_median import GeometricMedian
from msfl_common.strategies.krum import Krum
from msfl_common.strategies.median import Median
from msfl_common.strategies.multikrum import MultiKrum
from msfl_common.strategies.robust import FaultTolerant
from msfl_common.strategies.trimmed_mean import TrimmedMean

ADAPTIVE: tuple[Any, ...] = (FedAdam, FedYogi, FedAdagrad)


def quadratic(kind: Any, rounds: int, **settings: float) -> tuple[Floats, Floats]:
    """Three sites step down |w - centre|^2 / 2 each; the weights after some rounds by the product, and by the paper."""
    centres, cases, rate = np.array([[1.0, -2.0], [3.0, 0.5], [2.0, 4.0]]), np.array([10, 20, 70]), 0.3
    strategy = kind(**settings)
    w: Arrays = {"w": np.zeros(2, np.float32)}
    state = None
    x, m, v = np.zeros(2), np.zeros(2), np.full(2, strategy.tau**2)
    for _ in range(rounds):
        updates = [
            Update({"w": (w["w"] - rate * (w["w"] - centre)).astype(np.float32)}, int(count))
            for centre, count in zip(centres, cases, strict=True)
        ]
        made = strategy.combine(answers_of(strategy, w, updates, state))
        w, state = made.weights, made.state
        delta = sum(n / 100 * -rate * (x - c) for n, c in zip(cases, centres, strict=True))
        m = strategy.beta1 * m + (1 - strategy.beta1) * delta
        if kind is FedAdagrad:
            v = v + delta**2
        elif kind is FedYogi:
            v = v - (1 - strategy.beta2) * delta**2 * np.sign(v - delta**2)
        else:
            v = strategy.beta2 * v + (1 - strategy.beta2) * delta**2
        x = x + strategy.learning_rate * m / (np.sqrt(v) + strategy.tau)
    return w["w"].astype(np.float64), x


@pytest.mark.parametrize("kind", ADAPTIVE)
@pytest.mark.parametrize("settings", [{}, {"learning_rate": 0.3, "beta1": 0.5, "tau": 0.05}])
def test_adaptive_steps_are_the_papers(kind: Any, settings: dict[str, float]) -> None:
    found, expected = quadratic(kind, 30, **settings)
    assert found == pytest.approx(expected, rel=2e-4)
    far, _ = quadratic(kind, 400, learning_rate=0.3)
    assert far == pytest.approx([2.1, 2.7], abs=0.1)  # the centres by cases: all have one curvature


@pytest.mark.parametrize("kind", ADAPTIVE)
def test_adaptive_steps_are_flowers_but_for_the_start_and_the_correction_of_bias(kind: Any) -> None:
    """Flower starts v at 0, and corrects FedAdam's bias, which algorithm 2 of the paper does not."""
    ours = kind(learning_rate=0.1, beta1=0.9, tau=0.01)
    betas = {} if kind is FedAdagrad else {"beta_1": 0.9, "beta_2": 0.99}
    theirs: Any = getattr(flower, kind.__name__)(eta=0.1, tau=0.01, **betas)
    theirs.beta_1 = 0.9
    before, _ = drawn(3)
    state, theirs.v_t = None, {name: np.full_like(value, 1e-4) for name, value in before.items()}
    for number in (1, 2, 3):
        _, updates = drawn(4, seed=number)
        made = ours.combine(answers_of(ours, before, updates, state))
        if kind is FedAdam:
            theirs.eta = 0.1 * (1 - 0.9 ** (number + 1)) / np.sqrt(1 - 0.99 ** (number + 1))
        theirs.current_arrays = {name: value.copy() for name, value in before.items()}
        arrays, _ = theirs.aggregate_train(number, replies(updates))
        assert isinstance(arrays, ArrayRecord)
        for name, value in arrays.items():
            assert made.weights[name] == pytest.approx(value.numpy(), rel=1e-4, abs=1e-6)
        before, state = made.weights, made.state


def papers_krum(points: Floats, faulty: int) -> list[float]:
    scores = []
    for i, one in enumerate(points):
        apart = sorted(float(((one - other) ** 2).sum()) for j, other in enumerate(points) if j != i)
        scores.append(sum(apart[: max(1, len(points) - faulty - 2)]))
    return scores


def papers(strategy: Any, points: Floats, shares: Floats) -> Floats:
    """Each rule as its paper has it, on whole vectors."""
    num, f = len(points), getattr(strategy, "faulty", 0)
    if strategy.kind == "median":
        return np.median(points, axis=0)
    if strategy.kind == "trimmed-mean":
        return np.array([np.mean(sorted(column)[f : num - f]) for column in points.T])
    if strategy.kind == "krum":
        return points[int(np.argmin(papers_krum(points, f)))]
    if strategy.kind == "multikrum":
        return points[np.argsort(papers_krum(points, f))[: strategy.selected or num - f]].mean(axis=0)
    if strategy.kind == "bulyan":
        left, chosen = [*points], []
        while len(left) > 2 * f + 3 and len(chosen) < num - 2 * f:
            chosen.append(left.pop(int(np.argmin(papers_krum(np.array(left), f)))))
        last = np.argsort(papers_krum(np.array(left), f))
        chosen += [left[number] for number in last[: num - 2 * f - len(chosen)]]
        taken, found = np.array(chosen), []
        for column in taken.T:
            middle = np.median(column)
            found.append(np.mean(sorted(column, key=lambda value: abs(value - middle))[: len(chosen) - 2 * f]))
        return np.array(found)
    z = shares @ points
    for _ in range(strategy.iterations):
        pull = shares / np.maximum(strategy.smoothing, np.linalg.norm(points - z, axis=1))
        z = pull @ points / pull.sum()
    return z


ROBUST: tuple[Any, ...] = (
    Median(),
    TrimmedMean(),
    TrimmedMean(faulty=3),
    Krum(),
    Krum(faulty=2),
    MultiKrum(faulty=2),
    MultiKrum(selected=2),
    Bulyan(),
    Bulyan(faulty=2),
    GeometricMedian(iterations=3),
    GeometricMedian(),
)


@pytest.mark.parametrize("strategy", ROBUST, ids=str)
@pytest.mark.parametrize("num_sites", [11, 12])
def test_robust_rules_are_the_papers_wherever_the_updates_are_cut(
    monkeypatch: pytest.MonkeyPatch, strategy: Any, num_sites: int
) -> None:
    monkeypatch.setattr("msfl_common.strategies.robust._VALUES", 3 * num_sites)  # pieces of three values
    before, updates = drawn(num_sites, seed=num_sites)
    updates[3] = Update({name: -20 * value for name, value in updates[3].weights.items()})
    answers = answers_of(strategy, before, updates)
    points, shares = np.array([flat(update.weights) for update in updates]), np.array([*answers.shares.values()])
    assert flat(strategy.combine(answers).weights) == pytest.approx(
        papers(strategy, points, shares), rel=1e-5, abs=1e-6
    )


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Median(), flower.FedMedian()),
        (TrimmedMean(faulty=2), flower.FedTrimmedAvg(beta=2 / 9)),
        (Krum(faulty=2), flower.Krum(num_malicious_nodes=2)),
        (MultiKrum(faulty=2, selected=4), flower.MultiKrum(num_malicious_nodes=2, num_nodes_to_select=4)),
    ],
)
def test_robust_rules_are_flowers(ours: Any, theirs: Any) -> None:
    before, updates = drawn(9, seed=4)
    updates = [Update(update.weights, 10) for update in updates]  # Flower weighs Multi-Krum's mean by cases
    arrays, _ = theirs.aggregate_train(1, replies(updates))
    made = ours.combine(answers_of(ours, before, updates)).weights
    for name, value in dict_of(made).items():
        assert made[name] == pytest.approx(arrays[name].numpy(), rel=1e-4, abs=1e-6), value


def test_bulyan_is_flowers_where_both_choose_the_same_sites() -> None:
    """Flower scores once; the paper scores anew among those that are left."""
    before, updates = drawn(7, seed=1)
    for far in (0, 1):
        updates[far] = Update({name: value + 5 - 14 * far for name, value in updates[far].weights.items()})
    arrays, _ = flower.Bulyan(num_malicious_nodes=1).aggregate_train(1, replies(updates))
    made = Bulyan().combine(answers_of(Bulyan(), before, updates)).weights
    assert arrays is not None
    for name, value in arrays.items():
        assert made[name] == pytest.approx(value.numpy(), rel=1e-5)


@pytest.mark.parametrize("strategy", [Median(), TrimmedMean(), Krum(), MultiKrum(), Bulyan()], ids=str)
def test_too_few_sites_are_refused_by_name(strategy: FaultTolerant) -> None:
    before, updates = drawn(strategy.fewest_sites)
    strategy.combine(answers_of(strategy, before, updates))
    with pytest.raises(
        RunError, match=rf"{strategy.kind} with faulty: 1 needs {len(updates)} sites, and {len(updates) - 1}"
    ):
        strategy.combine(answers_of(strategy, before, updates[1:]))


def test_running_statistics_do_not_say_who_is_near_and_stay_within_the_sites() -> None:
    """A scanner's variance may be a thousand times another's; it may not decide for Krum, nor fall below 0."""
    rng, updates = np.random.default_rng(0), []
    before = {"w": np.zeros(8, np.float32), "n.running_var": np.ones(2, np.float32)}
    for number in range(7):
        way = rng.normal(0.5, 0.01 if number != 2 else 1.0, 8).astype(np.float32)
        updates.append(Update({"w": way, "n.running_var": np.full(2, 10.0 ** (number - 3), np.float32)}))
    updates[2] = Update({"w": updates[2].weights["w"], "n.running_var": updates[3].weights["n.running_var"]})
    for strategy in (Krum(), MultiKrum(), Bulyan(), Median(), TrimmedMean(), GeometricMedian()):
        made = strategy.combine(answers_of(strategy, before, updates, equal=True)).weights
        assert np.abs(made["w"] - 0.5).max() < 0.1
        assert 0.001 <= made["n.running_var"].min() <= made["n.running_var"].max() <= 1000
    assert not any(STRATEGIES[kind].extrapolates for kind in ("median", "trimmed-mean", "krum", "geometric-median"))
