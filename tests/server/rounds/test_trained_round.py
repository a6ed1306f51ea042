"""Coordinators killed between training and the checkpoint, among sites that answer each round once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message
from tests.server.rounds.test_loop import (
    Killed,
    Recorder,
    equal,
    final_weights,
    grid_of,
    replace_weights,
    sites,
    start,
    with_server_momentum,
)

from msfl_common.config.site import SiteConfig
from msfl_common.config.study import StudyConfig
from msfl_server.rounds import loop
from msfl_server.rounds.checkpoint import Checkpoint, RunState
from msfl_server.rounds.loop import run_rounds
from msfl_server.rounds.trained_round import TrainedRecord, TrainedRound, load_trained, save_trained, weights_sha256

__all__ = ["sites"]


class DiesMeasuring(Recorder):
    """Is killed in round 2 when two of three sites have validated."""

    def on_wait(self, number: int, what: str, names: list[str], left_s: float) -> None:
        if (number, what, len(names)) == (2, "validation", 1):
            raise Killed


def lose_one_update(once: list[int]) -> Callable[[int, Message], Message]:
    """The second update of site-c does not arrive; `once` is emptied with it."""

    def tamper(node: int, reply: Message) -> Message:
        if node == 3 and "arrays" in reply.content and once and once.pop() == 0:
            return replace_weights(reply, lambda weights: weights * np.nan)
        return reply

    return tamper


@pytest.mark.slow
@pytest.mark.parametrize(("when", "momentum"), [("measuring", 0.5), ("writing", 0.0)])
def test_a_run_killed_between_training_and_checkpoint_is_refused_by_no_site(
    sites: list[SiteConfig],
    tiny_study: StudyConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    when: str,
    momentum: float,
) -> None:
    """The same weights, bit for bit, though the site whose update was lost is there again after the kill."""
    study = with_server_momentum(tiny_study, momentum)
    run_rounds(grid_of(sites, lose_one_update([0, 1])), study, start(study), tmp_path / "whole", Recorder())
    out = tmp_path / "killed"

    def die_writing(folder: Path, checkpoint: Checkpoint) -> None:
        if checkpoint.state.round == 2:
            raise Killed
        save(folder, checkpoint)

    save = loop.save_checkpoint
    grid = grid_of(sites, lose_one_update([0, 1]), cache_answers=True)
    if when == "writing":
        monkeypatch.setattr(loop, "save_checkpoint", die_writing)
    with pytest.raises(Killed):
        run_rounds(grid, study, start(study), out, DiesMeasuring() if when == "measuring" else Recorder())
    monkeypatch.setattr(loop, "save_checkpoint", save)
    recorder = Recorder()
    run_rounds(grid_of(sites, cache_answers=True), study, start(study), out, recorder)
    assert recorder.states[0].round == 1
    failures = [(one.site, one.code) for record in recorder.states[-1].history for one in record.sites_failed]
    assert failures == [("site-c", "BAD_UPDATE")]
    assert all(set(record.per_site["dsc"]) == {"site-a", "site-b", "site-c"} for record in recorder.states[-1].history)
    assert equal(final_weights(out), final_weights(tmp_path / "whole"))
    assert not list((out / "checkpoints").glob("trained_*"))


def test_a_trained_round_is_that_of_the_weights_it_started_from(tmp_path: Path) -> None:
    before = Checkpoint(RunState(), {"w": np.zeros(3, np.float32)})
    record = TrainedRecord(
        round=1,
        started_from=weights_sha256(before.weights),
        train_cases={"a": 4},
        loss=0.5,
        failures=(),
        busy_s=1.0,
        seconds=2.0,
    )
    weights = {"w": np.arange(3, dtype=np.float32)}
    save_trained(tmp_path, TrainedRound(record, weights, {}))
    found = load_trained(tmp_path, before, lambda _: {})
    assert found is not None
    assert (found.record, found.weights["w"].tolist()) == (record, [0, 1, 2])
    assert load_trained(tmp_path, before, lambda weights: {"momentum": weights}) is None
    assert load_trained(tmp_path, Checkpoint(RunState(round=1), before.weights), lambda _: {}) is None
    assert load_trained(tmp_path, Checkpoint(RunState(), {"w": np.ones(3, np.float32)}), lambda _: {}) is None
    (tmp_path / "checkpoints" / "trained_0001" / "weights.safetensors").write_bytes(b"half")
    assert load_trained(tmp_path, before, lambda _: {}) is None
