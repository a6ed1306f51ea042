"""Updates that stand out among a round's, and those that do not."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from tests.common.strategies.combined_updates import Floats, Update

from msfl_common.models.weights import Weights
from msfl_server.aggregation import update_figures as figures
from msfl_server.aggregation.update_figures import UpdateFigures, update_figures

BEFORE: Weights = {
    "a": np.ones((40, 5), np.float32),
    "b": np.ones(100, np.float32),
    "n.running_mean": np.zeros(3, np.float32),
}


def ways(num_sites: int, agreed: float = 1.0) -> list[Floats]:
    """Ways of honest sites: a common one, and one of each."""
    rng = np.random.default_rng(num_sites)
    common = agreed * rng.normal(0, 1, 300)
    return [common + rng.normal(0, 1, 300) for _ in range(num_sites)]


def found(ways: list[Floats], earlier: float | None = -0.2) -> Mapping[str, UpdateFigures]:
    updates = {}
    for number, way in enumerate(ways):
        a, b = way[:200].reshape(40, 5).astype(np.float32), way[200:].astype(np.float32)
        statistics = np.full(3, 1e6 * number, np.float32)  # of a scanner, which say nothing here
        updates[f"s{number}"] = Update({"a": BEFORE["a"] + a, "b": BEFORE["b"] + b, "n.running_mean": statistics})
    return update_figures(BEFORE, updates, dict.fromkeys(updates, earlier))


def odd(ways: list[Floats], earlier: float | None = -0.2) -> dict[str, str]:
    return {site: one.odd for site, one in found(ways, earlier).items() if one.odd}


@pytest.mark.parametrize("num_sites", [1, 2, 3, 5, 10])
@pytest.mark.parametrize("agreed", [0.0, 0.3, 1.0, 3.0])
def test_honest_updates_do_not_stand_out(num_sites: int, agreed: float) -> None:
    assert odd(ways(num_sites, agreed)) == {}


@pytest.mark.parametrize(("num_sites", "num_odd"), [(3, 1), (5, 1), (10, 3)])
def test_wrong_updates_are_named_with_why(num_sites: int, num_odd: int) -> None:
    wrong, honest = ways(num_sites)[:num_odd], ways(num_sites)[num_odd:]
    named = [f"s{number}" for number in range(num_odd)]
    rng = np.random.default_rng(0)
    assert odd([*(-one for one in wrong), *honest]) == dict.fromkeys(named, "against")
    assert odd([*(-one for one in wrong), *honest], 0.0) == odd([*(-one for one in wrong), *honest], None) == {}
    assert odd([*(5 * one for one in wrong), *honest]) == dict.fromkeys(named, "long")
    assert odd([*(-5 * one for one in wrong), *honest]) == dict.fromkeys(named, "long")
    assert odd([*(0 * one for one in wrong), *honest]) == dict.fromkeys(named, "short")
    if num_odd > 1:
        made_up = rng.normal(0, 1.4, 300)
        assert odd([*(made_up for _ in wrong), *honest]) == dict.fromkeys(named, "copy")


def test_figures_are_of_learned_weights_and_a_sample_tells_nearly_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    all_ways = ways(4)
    whole = found(all_ways)
    for number, way in enumerate(all_ways):
        others = [way @ other / np.linalg.norm(way) / np.linalg.norm(other) for other in all_ways if other is not way]
        assert whole[f"s{number}"].norm == pytest.approx(np.linalg.norm(way), rel=1e-5)
        assert whole[f"s{number}"].cosine == pytest.approx(np.median(others), rel=1e-4)
    monkeypatch.setattr(figures, "_MOST_PRODUCTS", 300 * 16 // 3)
    sample = found(all_ways)
    for site, one in whole.items():
        assert sample[site].norm == pytest.approx(one.norm, rel=0.2)
        assert sample[site].norm != one.norm
        assert sample[site].cosine == pytest.approx(one.cosine, abs=0.2)


def test_a_single_update_and_one_of_no_length_have_no_cosine() -> None:
    (one,) = found(ways(1)).values()
    assert one.cosine is None
    assert {one.cosine for one in found([np.zeros(300)] * 3).values()} == {None}
    assert odd([np.zeros(300)] * 3) == {}
