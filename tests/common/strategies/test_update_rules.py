"""Each strategy against its paper's update rule, written here anew, on quadratics and by gradient descent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.common.strategies.quadratic import (
    BODY,
    CASES,
    HEAD,
    NORM,
    NUM,
    ROUNDS,
    SHARES_N,
    START_P,
    STEPS,
    Federation,
    Floats,
    gradient,
    make_network,
    named,
    rate,
    vector,
)

from msfl_common.errors import ConfigError
from msfl_common.messages.layouts import network_layout
from msfl_common.messages.records import ModelUpdate
from msfl_common.models.network import get_weights
from msfl_common.strategies import STRATEGIES
from msfl_common.strategies.declared import parted_layers
from msfl_common.strategies.ditto import Ditto
from msfl_common.strategies.fedbn import FedBN
from msfl_common.strategies.feddyn import FedDyn
from msfl_common.strategies.fedprox import FedProx
from msfl_common.strategies.fedrep import FedRep
from msfl_common.strategies.scaffold import Scaffold
from msfl_common.strategies.sets import flattened
from msfl_server.aggregation.averaging import Averaging

SITES = range(len(CASES))
Direction = Callable[[Floats, int], Floats]  # weights and step to the gradient that is gone along


def descended(weights_P: Floats, number: int, direction: Direction) -> Floats:
    for step in range(STEPS):
        weights_P = weights_P - rate(number, step) * direction(weights_P, step)
    return weights_P


def close(found: Floats, expected: Floats) -> bool:
    return bool(np.allclose(found, expected, rtol=1e-4, atol=1e-5))


def test_fedprox(tmp_path: Path) -> None:
    federation, x = Federation(FedProx(mu=0.7), tmp_path), START_P
    for number in range(1, ROUNDS + 1):
        federation.round(number)
        y = [descended(x, number, lambda w, _, i=i, x=x: gradient(i, w) + 0.7 * (w - x)) for i in SITES]
        x = SHARES_N @ np.array(y)
    assert close(vector(federation.weights), x)


def test_scaffold_also_where_a_site_is_absent(tmp_path: Path) -> None:
    """Algorithm 1, option II; the third site joins in round 2, the second is absent then."""
    federation, x = Federation(Scaffold(), tmp_path), START_P
    c, own = np.zeros(NUM), np.zeros((len(CASES), NUM))
    for number, there in ((1, range(2)), (2, range(2, 3)), (3, SITES)):
        federation.round(number, there)
        way = sum(rate(number, step) for step in range(STEPS))
        shares = SHARES_N[there] / SHARES_N[there].sum()
        known = SHARES_N[:2] if number == 1 else SHARES_N
        y = np.array([descended(x, number, lambda w, _, i=i, c=c: gradient(i, w) + c - own[i]) for i in there])
        new = own[there] - c + (x - y) / way
        x, c = shares @ y, c + SHARES_N[there].sum() / known.sum() * (shares @ (new - own[there]))
        own[there] = new
    assert close(vector(federation.weights), x)
    assert close(vector(federation.sets["control"]), c)


def test_feddyn_also_where_a_site_is_absent(tmp_path: Path) -> None:
    alpha = 0.5
    federation, x = Federation(FedDyn(alpha=alpha), tmp_path), START_P
    h, own = np.zeros(NUM), np.zeros((len(CASES), NUM))
    for number, there in ((1, SITES), (2, range(1, 3)), (3, SITES)):
        federation.round(number, there)
        y = np.array(
            [descended(x, number, lambda w, _, i=i, x=x: gradient(i, w) - own[i] + alpha * (w - x)) for i in there]
        )
        own[there] -= alpha * (y - x)
        h = h - alpha * SHARES_N[there] @ (y - x)
        x = SHARES_N[there] / SHARES_N[there].sum() @ y - h / alpha
    assert close(vector(federation.weights), x)


def test_fedbn(tmp_path: Path) -> None:
    federation, x = Federation(FedBN(), tmp_path), np.tile(START_P, (len(CASES), 1))
    for number in range(1, ROUNDS + 1):
        answers = federation.round(number)
        y = np.array([descended(x[i], number, lambda w, _, i=i: gradient(i, w)) for i in SITES])
        x = np.where(NORM, y, SHARES_N @ y)
    assert all(set(answer) == {n for n in named(START_P) if not n.startswith("norm")} for answer in answers.values())
    assert all(close(federation.whole(i, ROUNDS), x[i]) for i in SITES)


@pytest.mark.parametrize(("share", "steps"), [(0.5, 2), (0.01, 1), (0.99, 3)])
def test_fedrep(tmp_path: Path, share: float, steps: int) -> None:
    """The head with the body as it came, then the body with that head."""
    federation, x = Federation(FedRep(head_share=share), tmp_path), np.tile(START_P, (len(CASES), 1))
    for number in range(1, ROUNDS + 1):
        federation.round(number)
        y = np.array(
            [descended(x[i], number, lambda w, k, i=i: np.where((k < steps) == HEAD, gradient(i, w), 0)) for i in SITES]
        )
        x = np.where(HEAD, y, SHARES_N @ y)
    assert all(close(federation.whole(i, ROUNDS), x[i]) for i in SITES)
    assert vector(federation.weights).size == (BODY | NORM).sum()


def test_ditto(tmp_path: Path) -> None:
    lam = 0.8
    federation, x, v = Federation(Ditto(lam=lam), tmp_path), START_P, np.tile(START_P, (len(CASES), 1))
    for number in range(1, ROUNDS + 1):
        answers = federation.round(number)
        y = np.array([descended(x, number, lambda w, _, i=i: gradient(i, w)) for i in SITES])
        v = np.array([descended(v[i], number, lambda w, _, i=i, x=x: gradient(i, w) + lam * (w - x)) for i in SITES])
        x = SHARES_N @ y
    assert close(vector(federation.weights), x)
    assert all(set(answer) == set(named(START_P)) for answer in answers.values())  # none of the model that stays
    for i in SITES:
        own = federation.site(i).personal(ROUNDS)
        assert own is not None
        assert close(vector({name: own[name] for name in named(START_P)}), v[i])


@pytest.mark.parametrize("kind", STRATEGIES)
def test_a_round_that_is_trained_again_after_a_kill_comes_to_the_same_bits(tmp_path: Path, kind: str) -> None:
    """Each round's sites are made anew, as after a restart; in the second run, all rounds are trained twice."""
    strategy = STRATEGIES[kind]()  # type: ignore[call-arg]
    once, twice = Federation(strategy, tmp_path / "once"), Federation(strategy, tmp_path / "twice")
    for number in range(1, ROUNDS + 1):
        once.round(number)
        before = twice.weights, twice.sets
        twice.round(number)
        twice.weights, twice.sets = before
        twice.round(number)
    assert all(np.array_equal(twice.weights[name], value) for name, value in once.weights.items())
    kept = [sorted(run.folder.rglob("*.safetensors")) for run in (once, twice)]
    assert [path.read_bytes() for path in kept[0]] == [path.read_bytes() for path in kept[1]]
    assert bool(kept[0]) == (kind in {"scaffold", "fedbn", "ditto", "fedrep", "feddyn"})


@pytest.mark.parametrize("kind", [kind for kind, strategy in STRATEGIES.items() if strategy.sums_suffice])
def test_the_sum_that_masks_show_comes_to_the_same_bits(tmp_path: Path, kind: str) -> None:
    federation = Federation(STRATEGIES[kind](), tmp_path)  # type: ignore[call-arg]
    before = Averaging(federation.strategy).shared(named(START_P))
    answers = federation.round(1)
    layout = network_layout(federation.strategy, before)
    total = layout.zeros()
    for site, answer in answers.items():
        total += layout.encode(ModelUpdate(answer, CASES[site], 1.0, 1.0), len(answers))
    summed = Averaging(federation.strategy).combine_sum(before, {}, total)
    assert all(np.array_equal(summed.weights[name], value) for name, value in federation.weights.items())
    flat = [flattened({}, sets) for sets in (summed.sets, federation.sets)]
    assert all(np.array_equal(flat[1][name], value) for name, value in flat[0].items())


def test_networks_without_normalisation_or_with_a_head_alone_are_refused_by_name() -> None:
    plain = {name: value for name, value in get_weights(make_network()).items() if not name.startswith("norm")}
    with pytest.raises(ConfigError, match=r"fedbn.*no layer of this network would stay"):
        parted_layers(FedBN(), plain)
    head = {name: value for name, value in plain.items() if name.startswith("head")}
    with pytest.raises(ConfigError, match=r"fedrep.*all layers of this network would stay"):
        parted_layers(FedRep(), head)
