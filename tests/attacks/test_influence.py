"""How far one site can move or hold up a study: its share, its counts, suspension, and going back to good weights."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import RecordDict

from msfl_common.config.study import Rounds
from msfl_common.errors import Code, RunError, UpdateError
from msfl_common.messages.records import Refusal, ValidationMetrics, pack_refusal
from msfl_common.metrics.intervals import Estimate
from msfl_server.aggregation.feature_models.checks import odd_leaves
from msfl_server.aggregation.update_checks import capped_shares, check_count, too_far
from msfl_server.results.summary import RoundSummary, SiteFailure
from msfl_server.rounds.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from msfl_server.rounds.culprits import MOST_TRIES, combine_without_culprits
from msfl_server.rounds.rollback import MOST_ROLLBACKS, collapsed, diverged
from msfl_server.rounds.suspension import suspended
from tests.attacks import recorded
from tests.attacks.lies import HONEST, Recordings, no_pauses, set_number
from tests.attacks.recorded import (
    honest,
    play,
    same,
)
from tests.feature_models import make_settings

__all__ = ["no_pauses"]


def round_of(number: int, *codes: str, ok: bool = False) -> RoundSummary:
    failed = tuple(SiteFailure(site="site-d", code=code) for code in codes)
    sites_ok = (*HONEST, *(("site-d",) if ok else ()))
    return RoundSummary(round=number, train_loss=1.0, metrics={}, sites_ok=sites_ok, sites_failed=failed, seconds=1.0)


def test_only_garbage_in_a_row_suspends_and_each_time_for_longer() -> None:
    history = [round_of(1, "BAD_UPDATE"), round_of(2, "BAD_METRICS", ok=True), round_of(3, "NO_ANSWER")]
    assert suspended(history, 3) == {}
    history.append(round_of(4, "BAD_UPDATE", "BAD_METRICS"))
    assert suspended(history, 3) == {"site-d": 8}  # rounds 5, 6 and 7 without it
    history += [round_of(number, "SUSPENDED") for number in (5, 6, 7)]
    assert suspended(history, 3) == {}
    history += [round_of(number, "BAD_REPLY") for number in (8, 9, 10)]
    assert suspended(history, 3) == {"site-d": 17}
    history += [round_of(number, "SUSPENDED") for number in range(11, 17)]
    history += [round_of(17, "BAD_UPDATE"), round_of(18, ok=True), round_of(19, "BAD_UPDATE"), round_of(20, "BAD_SUMS")]
    assert suspended(history, 3) == {}
    for code in ("NOT_ONLINE", "WENT_OFFLINE", "NO_ANSWER", "POLICY", "OUTSIDE_HOURS", "INTERNAL", "TRAINING_DIVERGED"):
        assert suspended([round_of(number, code) for number in range(1, 30)], 3) == {}


class _Dies(recorded.Nobody):
    def __init__(self, after: int) -> None:
        self.after = after

    def on_round(self, state: Any) -> None:
        if state.round == self.after:
            raise KeyboardInterrupt


def test_a_site_that_sends_garbage_is_suspended_shown_and_asked_again_also_after_a_kill(
    recordings: Recordings, tmp_path: Path
) -> None:
    recording = recordings["boosting"]
    study = recording.study.model_copy(update={"rounds": Rounds(num_rounds=6, quorum=2, suspend_after=2)})
    again = {key: found * 6 for key, found in recording.rounds[2].replies.items()}
    again |= {("query", node): [content] * 9 for node, content in recording.facts.items()}

    def attack(kind: str, reply: RecordDict) -> RecordDict:
        if kind == "train":
            set_number("num-examples", "abc")(reply)
        return reply

    def run(out: Path, dies_after: int = 0) -> Checkpoint:
        save_checkpoint(out, recording.rounds[2].before)
        for after in [dies_after, 0] if dies_after else [0]:
            grid = recorded.Playback(again, attack)
            try:
                return recorded.run_rounds(grid, study, recording.first, out, _Dies(after))
            except KeyboardInterrupt:
                continue
        raise AssertionError

    whole = run(tmp_path / "whole")
    codes = [[failure.code for failure in record.sites_failed] for record in whole.state.history]
    assert codes == [[], ["BAD_UPDATE"], ["BAD_UPDATE"], ["SUSPENDED"], ["SUSPENDED"], ["BAD_UPDATE"]]
    for dies_after in (3, 4):
        resumed = run(tmp_path / f"killed-{dies_after}", dies_after)
        assert same(whole.weights, resumed.weights)
        assert [record.sites_failed for record in whole.state.history] == [
            record.sites_failed for record in resumed.state.history
        ]


def of_dice(mean: float) -> ValidationMetrics:
    return ValidationMetrics({"dsc": Estimate(mean, 5, 0.1, mean, mean)}, 5, 1.0)


def test_one_liar_cannot_say_that_the_model_came_apart() -> None:
    task = "lesion-segmentation"
    good = dict.fromkeys(("site-a", "site-b", "site-c"), of_dice(0.6))
    assert not collapsed(task, good, good | {"site-c": of_dice(0.0)})
    assert collapsed(task, good, dict.fromkeys(("site-a", "site-b"), of_dice(0.01)) | {"site-c": of_dice(0.6)})
    assert not collapsed(task, good, dict.fromkeys(good, of_dice(0.1)))  # bad, and still a model
    assert not collapsed(task, dict.fromkeys(good, of_dice(0.1)), dict.fromkeys(good, of_dice(0.0)))  # never was good
    assert not collapsed(task, {}, good)
    said = [SiteFailure(site=site, code=Code.TRAINING_DIVERGED) for site in HONEST[:2]]
    assert not diverged([*said, SiteFailure(site="site-d", code="NO_ANSWER")], 4)
    assert diverged(said, 3)


def test_a_model_that_came_apart_goes_back_to_the_last_good_round_and_not_for_ever(
    recordings: Recordings, tmp_path: Path
) -> None:
    recording = recordings["segmentation"]
    good = recording.rounds[2].before
    state = good.state.model_copy(update={"validation": dict.fromkeys((*HONEST, "site-d"), of_dice(0.9)), "good": 1})
    before = Checkpoint(state, good.weights, good.sets)
    after = play(recording, 2, honest, tmp_path, before)
    assert after.state.history[-1].set_back_to == 1
    assert same(after.weights, good.weights)
    assert (after.state.good, after.state.rollbacks, after.state.validation) == (1, 1, state.validation)
    often = Checkpoint(state.model_copy(update={"rollbacks": MOST_ROLLBACKS}), good.weights)
    with pytest.raises(RunError, match=r"round 2: the model came apart for the 4th time"):
        play(recording, 2, honest, tmp_path, often)


def test_weights_that_no_site_can_train_from_go_back_too(recordings: Recordings, tmp_path: Path) -> None:
    recording = recordings["segmentation"]
    refused = pack_refusal(Refusal(Code.TRAINING_DIVERGED, ""))
    one = recording.rounds[3]
    replies = {key: [refused] if key[0] == "train" else found for key, found in one.replies.items()}
    save_checkpoint(tmp_path, recording.rounds[2].before)
    state = one.before.state.model_copy(update={"good": 1})
    poisoned = Checkpoint(state, one.before.weights)
    changed = replace(recording, rounds={3: replace(one, replies=replies)})
    after = play(changed, 3, honest, tmp_path, poisoned)
    assert (after.state.history[-1].set_back_to, after.state.history[-1].train_loss) == (1, None)
    assert same(after.weights, recording.rounds[2].before.weights)
    unvalidated = replace(poisoned, state=state.model_copy(update={"good": 0}))
    with pytest.raises(RunError, match="round 3: 0 sites gave a usable update"):
        play(changed, 3, honest, tmp_path, unvalidated)


def test_the_good_round_is_kept_however_old(recordings: Recordings, tmp_path: Path) -> None:
    recording = recordings["segmentation"]
    before = recording.rounds[2].before
    for number in range(1, 10):
        state = before.state.model_copy(update={"round": number, "good": 2})
        save_checkpoint(tmp_path, Checkpoint(state, before.weights))
    left = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert left == [f"round_{number:04d}" for number in (2, 5, 6, 7, 8, 9)]
    found = load_checkpoint(tmp_path, recording.study, recording.first)
    assert found is not None
    assert found.state.round == 9


def test_of_two_sites_nobody_is_the_odd_one_and_of_three_the_far_one_is() -> None:
    before = {"w": np.ones(100, np.float32)}  # of length 10
    assert too_far({"a": (1.0, 0.0), "b": (99.0, 0.0)}, before) == {}
    assert set(too_far({"a": (1.0, 0.0), "b": (101.0, 0.0)}, before)) == {"b"}
    assert set(too_far({"a": (1.0, 0.0), "b": (1.1, 0.0), "c": (12.0, 0.0)}, before)) == {"c"}
    assert too_far({"a": (0.0, 0.0), "b": (1.0, 0.0), "c": (3.0, 0.0)}, before) == {}  # one that does nothing
    assert too_far({"a": (0.0, 0.0), "b": (0.01, 0.0), "c": (0.9, 0.0)}, before) == {}  # still near
    assert set(too_far({"a": (1.0, 0.0), "b": (1.0, 0.0), "c": (np.inf, 0.0)}, before)) == {"c"}
    statistics = {"w": (1.0, 5.0), "x": (1.0, 6.0), "y": (1.0, 500.0)}
    assert set(too_far(statistics, before | {"n.running_var": np.ones(4, np.float32)})) == {"y"}


@pytest.mark.parametrize("num_sites", [4, 6, 8])
def test_half_of_the_sites_that_stand_still_do_not_make_the_others_odd(num_sites: int) -> None:
    """Unchanged weights twice, and both honest sites were refused, round after round, then suspended."""
    before = {"w": np.ones(100, np.float32), "n.running_var": np.ones(4, np.float32)}  # of length 10, and 2
    half = num_sites // 2
    still = {f"hostile-{number}": (0.0, 0.0) for number in range(half)}
    assert too_far(still | {f"honest-{number}": (3.0, 9.0) for number in range(half)}, before) == {}
    assert len(too_far(still | {f"more-{number}": (3.0, 9.0) for number in range(half - 1)}, before)) == half - 1
    usual = {f"honest-{number}": (1.0, 1.0) for number in range(half)}
    assert len(too_far(usual | {f"hostile-{number}": (101.0, 1.0) for number in range(half)}, before)) == half
    boosting = make_settings({"kind": "gradient-boosting"}, 2)
    tiny = {f"hostile-{number}": 0.0 for number in range(half)}
    assert odd_leaves(boosting, tiny | {f"honest-{number}": 5.0 for number in range(half)}) == {}


def test_a_share_is_capped_where_the_study_says_so() -> None:
    assert capped_shares({"b": 30, "a": 10}, 1.0) == {"a": 0.25, "b": 0.75}
    assert capped_shares({"a": 10, "b": 30, "c": 9960}, 0.5) == {"a": 0.125, "b": 0.375, "c": 0.5}
    assert capped_shares({"a": 1, "b": 1000, "c": 1000}, 0.4) == pytest.approx({"a": 0.2, "b": 0.4, "c": 0.4})
    assert capped_shares({"a": 5, "b": 40, "c": 55}, 0.45) == pytest.approx({"a": 0.1, "b": 0.45, "c": 0.45})
    assert capped_shares({"a": 1, "b": 1000}, 0.3) == {"a": 0.5, "b": 0.5}


def test_a_count_is_held_against_facts_and_study() -> None:
    check_count(14, 10, Rounds())
    check_count(10_000, None, Rounds())
    for told, num_cases in ((10, 15), (0, 5), (9999, 10_001), (None, 10_001)):
        with pytest.raises(UpdateError, match="max_cases"):
            check_count(num_cases, told, Rounds())


def test_who_stands_in_the_way_is_found_even_where_no_check_knows_why() -> None:
    def combine(parts: Any) -> int:
        if {"b", "d"} & set(parts):
            raise np.linalg.LinAlgError("singular")
        return sum(parts.values())

    parts = dict(zip("abcde", range(5), strict=True))
    assert combine_without_culprits(combine, parts, 2) == (6, ("b", "d"))
    with pytest.raises(RunError, match="cannot be combined, whichever is left out"):
        combine_without_culprits(combine, parts, 4)
    tried = []

    def never(parts: Any) -> int:
        tried.append(len(parts))
        raise UpdateError(f"try {len(tried)}")

    with pytest.raises(RunError, match=r"whichever is left out: try 1$"):
        combine_without_culprits(never, dict.fromkeys(range(30), 0), 2)
    assert len(tried) == MOST_TRIES

    def full(parts: Any) -> int:
        raise OSError(errno.ENOSPC, f"{len(parts)} parts")

    with pytest.raises(OSError, match="5 parts"):  # the coordinator's own disk is no site's fault
        combine_without_culprits(full, parts, 0)
