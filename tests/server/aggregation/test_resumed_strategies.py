"""Every strategy goes on from a checkpoint to the same bits, and from updates in whichever order they came."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from msfl_common.config.study import StudyConfig
from msfl_common.messages.records import ModelUpdate
from msfl_common.models.weights import Weights
from msfl_common.strategies import STRATEGIES
from msfl_common.strategies.base import Sets
from msfl_server.aggregation.averaging import Averaging
from msfl_server.aggregation.combined import Combined
from msfl_server.aggregation.strategy import strategy_of
from msfl_server.aggregation.update_store import StoredUpdate, update_store
from msfl_server.rounds.checkpoint import Checkpoint, RunState, load_checkpoint, save_checkpoint

NUM_SITES = 7
NAMES = ("model.0.conv.weight", "model.0.adn.N.weight", "model.1.conv.weight", "model.1.conv.bias")


def first_weights() -> Weights:
    rng = np.random.default_rng(0)
    return {name: rng.normal(0, 1, (3, 4) if "conv.w" in name else 4).astype(np.float32) for name in NAMES}


def one_round(averaging: Averaging, before: Checkpoint, number: int, folder: Path, backwards: bool) -> Checkpoint:
    """A round of updates that are drawn anew for its number."""
    rng = np.random.default_rng(number)
    with update_store(folder) as store:
        updates: dict[str, StoredUpdate] = {}
        for site in (f"site-{index}" for index in range(NUM_SITES)):
            like = averaging.answer_like(before.weights)
            drawn = {name: rng.normal(0, 0.1, value.shape).astype(np.float32) for name, value in like.items()}
            arrays = {n: value + before.weights[n] if n in before.weights else abs(value) for n, value in drawn.items()}
            update = ModelUpdate(arrays, int(rng.integers(5, 50)), float(rng.uniform(0.1, 1)), 1.0)
            updates[site] = replace(store.keep(site, update), moved=averaging.check(before.weights, update))
        assert not averaging.odd(before.weights, updates)
        in_order: Mapping[str, StoredUpdate] = dict(sorted(updates.items(), reverse=backwards))
        made: Combined = averaging.combine(before.weights, before.sets, in_order)
    return Checkpoint(before.state.model_copy(update={"round": number}), made.weights, made.sets)


def same(ours: Weights, theirs: Weights) -> bool:
    return list(ours) == list(theirs) and all(np.array_equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("kind", STRATEGIES)
def test_a_run_killed_after_its_second_round_goes_on_to_the_same_bits(tmp_path: Path, kind: str) -> None:
    content = {"name": "a", "strategy": {"kind": kind}, "rounds": {"quorum": NUM_SITES, "num_rounds": 4}}
    study = StudyConfig.model_validate(content)
    averaging = strategy_of(study)
    assert isinstance(averaging, Averaging)
    first = first_weights()
    whole = begun = Checkpoint(RunState(), averaging.shared(first))
    for number in (1, 2, 3, 4):
        whole = one_round(averaging, whole, number, tmp_path, backwards=False)
    for number in (1, 2):
        begun = one_round(averaging, begun, number, tmp_path, backwards=True)
        save_checkpoint(tmp_path, begun)
    for number in (3, 4):
        found = load_checkpoint(tmp_path, study, first)
        assert found is not None
        assert found.state.round == number - 1
        save_checkpoint(tmp_path, one_round(averaging, found, number, tmp_path, backwards=True))
    found = load_checkpoint(tmp_path, study, first)
    assert found is not None
    assert same(found.weights, whole.weights)
    assert {*found.sets} == {*whole.sets} == {*averaging.sets_like(whole.weights)}
    sets: Sets = whole.sets
    assert all(same(dict(found.sets[name]), dict(arrays)) for name, arrays in sets.items())
    assert not same(whole.weights, averaging.shared(first))
    assert all(np.abs(value).max() > 0 for arrays in sets.values() for value in arrays.values())
