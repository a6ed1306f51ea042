"""A hostile or broken site beside three honest ones: each lie is refused by name, and changes nothing of theirs."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from flwr.app import Array, ConfigRecord, Error, RecordDict

from msfl_common.config import Rounds
from msfl_common.errors import Code, RunError, UpdateError
from msfl_common.feature_models.trees import FEATURE, RIGHT, ROOT, VALUES
from msfl_common.messages import Refusal, ValidationMetrics, pack_refusal
from msfl_common.statistics import Estimate
from msfl_server.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from msfl_server.culprits import combine_without_culprits
from msfl_server.feature_aggregation_checks import odd_leaves
from msfl_server.federation_conduct import suspended
from msfl_server.federation_exchange import UNREADABLE, Presence
from msfl_server.federation_roster import Roster, meet_sites
from msfl_server.rollback import MOST_ROLLBACKS, collapsed
from msfl_server.summary import RoundSummary, SiteFailure
from msfl_server.update_checks import capped_shares, check_count, too_far
from tests.attacks import recorded
from tests.attacks.fuzzing import fuzz, fuzz_bytes, fuzz_facts, fuzz_sums
from tests.attacks.mutated_replies import array_of, npy, npy_claiming, put
from tests.attacks.recorded import (
    Recording,
    absent,
    classifier,
    honest,
    learned,
    make_patients,
    meet,
    play,
    same,
)
from tests.feature_models import make_settings

Change = Callable[[RecordDict], Any]
HONEST = ("site-a", "site-b", "site-c")
KINDS = ("segmentation", "logistic", "lda", "boosting", "forest", "mlp", "svm")


@dataclass
class Recordings:
    """Real rounds, recorded when a test first asks for them."""

    folder: Path
    patients: Path
    made: dict[str, Recording]

    def __getitem__(self, kind: str) -> Recording:
        if kind not in self.made:
            segments = kind == "segmentation"
            made = recorded.segmentation(self.folder) if segments else classifier(kind, self.folder, self.patients)
            self.made[kind] = made
        return self.made[kind]


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Recordings:
    folder = tmp_path_factory.mktemp("recorded")
    return Recordings(folder, make_patients(folder), {})


@pytest.fixture(autouse=True)
def _no_pauses() -> Any:
    with mock.patch("time.sleep"):
        yield


def numbers(content: RecordDict) -> Any:
    return content.metric_records["metrics"]


def arrays(content: RecordDict) -> Any:
    return content.array_records["arrays"]


def set_number(name: str, value: Any) -> Change:
    return lambda content: put(numbers(content), name, value)


def set_block(made: Array) -> Change:
    return lambda content: put(arrays(content), "block00000", made)


def map_block(change: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]) -> Change:
    def apply(content: RecordDict) -> None:
        put(arrays(content), "block00000", Array(change(arrays(content)["block00000"].numpy().copy())))

    return apply


def map_sums(like: str, change: Callable[[np.ndarray[Any, Any]], Any]) -> Callable[[Recording, int], Change]:
    """Change one of the sums that a feature model's site sends in one block."""

    def of(recording: Recording, number: int) -> Change:
        from msfl_common.feature_models import contribution_like

        assert recording.study.classification is not None
        shapes = contribution_like(recording.study.classification, recording.rounds[number].before.weights)

        def apply(flat: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            start = 0
            for name, value in shapes.items():
                if name == like:
                    part = flat[start : start + value.size].reshape(value.shape).copy()
                    changed = change(part)
                    flat[start : start + value.size] = np.reshape(part if changed is None else changed, -1)
                start += value.size
            return flat

        return map_block(apply)

    return of


def map_trees(change: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]) -> Callable[[Recording, int], Change]:
    """Change the trees that a site sends."""

    def of(recording: Recording, number: int) -> Change:
        columns = recording.rounds[number].before.weights["trees"].shape[1]
        return map_block(lambda flat: change(flat.reshape(-1, columns)).reshape(-1))

    return of


def lie(recording: Recording, number: int, kind: str, change: Change, out: Path) -> Checkpoint:
    """A round in which the attacker's reply of one kind is changed, and nothing else."""

    def attack(asked: str, reply: RecordDict) -> Any:
        if asked == kind:
            changed = change(reply)
            return changed if isinstance(changed, RecordDict | Error) else reply
        return reply

    return play(recording, number, attack, out)


def expect_refused(recording: Recording, number: int, change: Change, out: Path, code: str = "BAD_UPDATE") -> None:
    """The attacker's update does not count, by name; all else is as if it had not been there."""
    after = lie(recording, number, "train", change, out)
    last = after.state.history[-1]
    assert ("site-d", code) in [(failure.site, failure.code) for failure in last.sites_failed]
    assert last.sites_ok == HONEST
    assert same(after.weights, play(recording, number, absent, out).weights)


UPDATES: dict[str, Change] = {
    "an .npy header of 364 TiB": set_block(array_of(npy_claiming((10**14,)))),
    "an .npy header of more than memory can count": set_block(array_of(npy_claiming((2**62, 2**62)))),
    "an .npy header of a negative length": set_block(array_of(npy_claiming((-1,)))),
    "an .npy header of brackets alone": set_block(array_of(b"\x93NUMPY\x01\x00\xff\x03" + b"(" * 1023)),
    "a pickle in an .npy file": set_block(array_of(npy(np.array([{}], object), allow_pickle=True))),
    "a pickle": set_block(array_of(pickle.dumps([1]), "pickle")),
    "garbage for a body": set_block(array_of(b"\x00garbage\xff" * 9)),
    "no bytes": set_block(array_of(b"")),
    "bytes after the values": lambda content: put(
        arrays(content), "block00000", array_of(arrays(content)["block00000"].data + b"more")
    ),
    "numbers the other way round": map_block(lambda values: values.astype(">f4")),
    "weights of 3e38": map_block(lambda values: np.full_like(values, 3e38)),
    "weights that are infinite": map_block(lambda values: values * np.float32(np.inf)),
    "one weight that is not a number": map_block(lambda values: np.append(values[:-1], np.float32(np.nan))),
    "weights a million times too large": map_block(lambda values: values * np.float32(1e6)),
    "10**15 cases": set_number("num-examples", 10**15),
    "a few cases more than its facts": set_number("num-examples", 9),
    "minus three cases": set_number("num-examples", -3),
    "two and a half cases": set_number("num-examples", 2.5),
    "true cases": set_number("num-examples", True),
    "cases in words": set_number("num-examples", "abc"),
    "no number of cases": set_number("num-examples", None),
    "a list of cases": set_number("num-examples", [3, 4]),
    "a loss that is not a number": set_number("train_loss", float("nan")),
    "a loss of 1e300": set_number("train_loss", 1e300),
    "minus a second": set_number("seconds", -1.0),
    "a number that nobody asked for": set_number("n" * 10_000, 1.0),
    "a record that nobody asked for": lambda content: put(content, "note", ConfigRecord({"text": "x"})),
    "an empty message": lambda _: RecordDict(),
    "metrics in place of an update": lambda content: RecordDict({"metrics": numbers(content)}),
}


@pytest.mark.parametrize("change", UPDATES.values(), ids=UPDATES)
def test_an_update_that_is_a_lie_is_refused(recordings: Recordings, tmp_path: Path, change: Change) -> None:
    expect_refused(recordings["segmentation"], 2, change, tmp_path)


def test_bytes_that_are_no_message_are_told_from_a_site_that_failed(recordings: Recordings, tmp_path: Path) -> None:
    for code, expected in ((UNREADABLE, "BAD_REPLY"), (0, "INTERNAL"), (2**31, "INTERNAL")):
        error = Error(code=code, reason="patient 17")
        expect_refused(recordings["segmentation"], 2, lambda _, error=error: error, tmp_path, expected)


def test_a_refusal_with_anything_for_a_code_is_one(recordings: Recordings, tmp_path: Path) -> None:
    for code, site in (("9" * 10_000, "x"), (None, "../../etc"), (7, ["a"]), ("POLICY", "[red]a[/]\n")):
        record = ConfigRecord()
        put(record, "code", code)
        put(record, "site", site)
        expected = "POLICY" if code == "POLICY" else "INTERNAL"
        refusal = RecordDict({"refusal": record})
        expect_refused(recordings["segmentation"], 2, lambda _, refusal=refusal: refusal, tmp_path, expected)


def negative_first(values: np.ndarray[Any, Any]) -> None:
    values.reshape(-1)[0] = -1.0


def scaled(factor: float) -> Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]:
    return lambda values: values * factor


def set_diagonal(values: np.ndarray[Any, Any]) -> None:
    values[0][0, 0] *= 1.01


def set_corner(values: np.ndarray[Any, Any]) -> None:
    values[0][0, 1] += 1.0


def indefinite(values: np.ndarray[Any, Any]) -> None:
    values[0][0, 1] = values[0][1, 0] = 10 * np.sqrt(values[0][0, 0] * values[0][1, 1])


SUMS: dict[str, tuple[str, int, Callable[[Recording, int], Change]]] = {
    "a negative count": ("logistic", 1, map_sums("counts", negative_first)),
    "half a case": ("logistic", 1, map_sums("counts", scaled(0.5001))),
    "more cases by class than in all": ("logistic", 1, map_sums("counts", scaled(3.0))),
    "sums of a class without a case": ("logistic", 1, map_sums("counts", lambda counts: np.append([0.0], counts[1:]))),
    "negative squares": ("logistic", 1, map_sums("squares", scaled(-1.0))),
    "an input of another unit": ("logistic", 1, map_sums("sums", scaled(1e7))),
    "deviations of 1e200": ("logistic", 1, map_sums("squares", scaled(1e200))),
    "sums that overflow": ("logistic", 1, map_sums("sums", lambda sums: np.full_like(sums, 1.7e308))),
    "a scatter that is not symmetric": ("lda", 1, map_sums("scatter", set_corner)),
    "a scatter with a negative variance": ("lda", 1, map_sums("scatter", indefinite)),
    "a scatter that contradicts the squares": ("lda", 1, map_sums("scatter", set_diagonal)),
    "a negative loss": ("logistic", 2, map_sums("loss", scaled(-1.0))),
    "a loss of 1e30": ("logistic", 2, map_sums("loss", lambda _: 1e30)),
    "a gradient of more than its cases": ("logistic", 2, map_sums("gradient", scaled(1e5))),
    "negative curvature": ("logistic", 2, map_sums("curvature", scaled(-1.0))),
    "curvature of more than its cases": ("logistic", 2, map_sums("curvature", scaled(1e4))),
    "curvature that is not symmetric": ("logistic", 2, map_sums("curvature", set_corner)),
    "curvature that is indefinite": ("logistic", 2, map_sums("curvature", indefinite)),
    "a hinge's gradient that its loss does not allow": ("svm", 2, map_sums("gradient", scaled(50.0))),
    "a forest of one tree too few": ("forest", 2, map_trees(lambda trees: trees[: _second_root(trees)])),
    "a forest twice as large": ("forest", 2, map_trees(lambda trees: np.concatenate([trees, trees]))),
    "a tree whose child is itself": ("forest", 2, map_trees(lambda trees: _at(trees, RIGHT, 0.0))),
    "a tree whose child is its parent": ("forest", 2, map_trees(lambda trees: _at(trees, RIGHT, -1.0))),
    "a tree that asks for an unknown input": (
        "forest",
        2,
        map_trees(lambda trees: _at(trees, FEATURE, 99.0)),
    ),
    "leaves of more than the whole": ("forest", 2, map_trees(lambda trees: _leaves(trees, 7.0))),
    "leaves below nothing": ("forest", 2, map_trees(lambda trees: _leaves(trees, -1.0))),
    "a leaf of 1e9": ("boosting", 2, map_trees(lambda trees: _leaves(trees, 1e9))),
    "a leaf far above the others'": ("boosting", 3, map_trees(lambda trees: _leaves(trees, 40.0))),
    "layers a million times too large": ("mlp", 2, lambda *_: map_block(lambda values: values * 1e6)),
    "layers of 1e300": ("mlp", 2, lambda *_: map_block(lambda values: np.full_like(values, 1e300))),
}


def _second_root(trees: np.ndarray[Any, Any]) -> int:
    return int(np.flatnonzero(trees[:, ROOT])[-1])


def _at(trees: np.ndarray[Any, Any], column: int, value: float) -> np.ndarray[Any, Any]:
    trees[np.flatnonzero(trees[:, FEATURE] >= 0)[0], column] = value
    return trees


def _leaves(trees: np.ndarray[Any, Any], factor: float) -> np.ndarray[Any, Any]:
    leaves = np.flatnonzero(trees[:, FEATURE] == -1)
    trees[leaves, VALUES] = factor
    return trees


@pytest.mark.parametrize("name", SUMS)
def test_a_contribution_that_no_cases_give_is_refused(recordings: Recordings, tmp_path: Path, name: str) -> None:
    kind, number, change = SUMS[name]
    expect_refused(recordings[kind], number, change(recordings[kind], number), tmp_path)


def shifted_cells(content: RecordDict) -> None:
    cells = arrays(content)["cells"].numpy().copy()
    cells[0, 0, 1] += 1
    put(arrays(content), "cells", Array(cells))


def other_outcomes(content: RecordDict) -> None:
    confusion = arrays(content)["confusion"].numpy().copy()
    put(arrays(content), "confusion", Array(confusion[::-1].copy()))


METRICS: dict[str, tuple[str, int, Change]] = {
    "a Dice of 1e6": ("segmentation", 2, set_number("dsc.mean", 1e6)),
    "a Dice below 0": ("segmentation", 2, set_number("dsc.mean", -0.5)),
    "a distance of 10 km": ("segmentation", 2, set_number("abs_volume_difference_ml.mean", 1e7)),
    "an AUROC of 1.5": ("boosting", 2, set_number("auroc.mean", 1.5)),
    "a slope of 1e12": ("boosting", 2, set_number("calibration_intercept.mean", 1e12)),
    "an interval from high to low": ("boosting", 2, lambda content: [
        put(numbers(content), "brier.ci95_low", 0.9), put(numbers(content), "brier.ci95_high", 0.1)]),
    "half an interval": ("boosting", 2, lambda content: put(numbers(content), "brier.ci95_low", float("nan"))),
    "a negative standard error": ("boosting", 2, set_number("auroc.standard_error", -0.1)),
    "more cases with a Dice than cases": ("segmentation", 2, set_number("dsc.num_cases", 10**9)),
    "10**15 cases measured": ("segmentation", 2, set_number("num-examples", 10**15)),
    "9000 cases measured": ("segmentation", 2, set_number("num-examples", 9000)),
    "a metric that nobody knows": ("segmentation", 2, set_number("accuracy_of_ours.mean", 1.0)),
    "groups that do not add up": ("boosting", 2, shifted_cells),
    "groups and a matrix of other outcomes": ("boosting", 2, other_outcomes),
    "a matrix that is not there": ("boosting", 2, lambda content: arrays(content).pop("confusion")),
}  # fmt: skip


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_that_no_cases_have_is_refused(recordings: Recordings, tmp_path: Path, name: str) -> None:
    kind, number, change = METRICS[name]
    after = lie(recordings[kind], number, "evaluate", change, tmp_path)
    truth = play(recordings[kind], number, honest, tmp_path)
    last = after.state.history[-1]
    assert ("site-d", "BAD_METRICS") in [(failure.site, failure.code) for failure in last.sites_failed]
    assert {**truth.state.validation, "site-d": None} == {**after.state.validation, "site-d": None}
    assert "site-d" not in after.state.validation
    assert same(after.weights, truth.weights)


FACTS: dict[str, tuple[str, Any]] = {
    "cases in words": ("cases_at_least", "abc"),
    "no cases": ("cases_at_least", None),
    "10**15 cases": ("cases_at_least", 10**15),
    "fewer cases than none": ("cases_at_least", -5),
    "a number of 5000 digits": ("cases_at_least", "9" * 5000),
    "true cases": ("cases_at_least", True),
    "a path for a name": ("site", "../../.ssh/site"),
    "markup for a name": ("site", "[red]site[/]"),
    "two lines for a name": ("site", "site-d\nsite-e"),
    "a list for a name": ("site", ["site-d"]),
    "a version of 10 kB": ("version", "1" * 10_000),
    "a fact that nobody asked for": ("patients", "17, 18"),
}


@pytest.mark.parametrize("name", FACTS)
def test_facts_that_are_none_are_refused(recordings: Recordings, name: str) -> None:
    key, value = FACTS[name]

    def attack(_: str, reply: RecordDict) -> RecordDict:
        put(reply.config_records["facts"], key, value)
        return reply

    roster = meet(recordings["segmentation"], attack)
    assert [failure.code for failure in roster.absent] == ["BAD_FACTS"]
    assert set(roster.names.values()) == set(HONEST)


def test_a_node_whose_key_has_no_name_yet_is_not_asked_for_one(recordings: Recordings) -> None:
    """One that comes between two looks at who is online could otherwise give an absent site's name."""
    recording = recordings["segmentation"]
    grid = recorded.Playback({("query", node): [content] for node, content in recording.facts.items()}, honest)
    vars(grid)["presence"] = lambda: {node: Presence(recording.names[node], "") for node in (1, 2, 3)}
    roster = Roster()
    meet_sites(grid, recorded.RoundTask(recording.study, 1), roster, recorded.Nobody())
    assert set(roster.names) == {1, 2, 3}


MOMENTS: dict[str, Change] = {
    "a negative variance": lambda content: put(arrays(content), "covariance", Array(-np.eye(2))),
    "a covariance that is not symmetric": lambda content: put(
        arrays(content), "covariance", Array(np.array([[5.0, 3.0], [0.0, 5.0]]))
    ),
    "a covariance that is indefinite": lambda content: put(
        arrays(content), "covariance", Array(np.array([[5.0, 50.0], [50.0, 5.0]]))
    ),
    "ages of thousands of years": lambda content: put(arrays(content), "covariance", Array(np.diag([1e9, 5.0]))),
    "features of 1e200": lambda content: put(arrays(content), "cross", Array(np.full((2, 3), 1e200))),
    "10**9 cases": set_number("num-examples", 10**9),
    "more scanners than cases": set_number("num_scanners", 31),
    "as many scanners as cases": set_number("num_scanners", 30),
}
RESIDUALS: dict[str, Change] = {
    "negative squares": lambda content: put(arrays(content), "squares", Array(-np.ones(3))),
    "squares of 1e300": lambda content: put(arrays(content), "squares", Array(np.full(3, 1e300))),
    "means that are elsewhere": lambda content: put(arrays(content), "intercepts", Array(np.full(3, 1e12))),
    "other cases than before": set_number("num-examples", 29),
}


@pytest.mark.parametrize(
    "name", [*(f"moments: {name}" for name in MOMENTS), *(f"residuals: {name}" for name in RESIDUALS)]
)
def test_sums_of_a_harmonization_that_no_cases_give_are_refused(name: str) -> None:
    step, of = name.split(": ")
    change = (MOMENTS if step == "moments" else RESIDUALS)[of]

    def attack(kind: str, reply: RecordDict) -> RecordDict:
        if kind == f"query.{step}":
            change(reply)
        return reply

    def without(kind: str, reply: RecordDict) -> RecordDict:
        return absent(kind, reply) if kind == f"query.{step}" else reply

    reference = learned(attack)
    assert reference.num_sites == 3
    assert reference == learned(without)
    assert learned(honest).num_sites == 4


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


def test_a_model_that_came_apart_goes_back_to_the_last_good_round_and_not_for_ever(
    recordings: Recordings, tmp_path: Path
) -> None:
    recording = recordings["segmentation"]
    good = recording.rounds[2].before
    state = good.state.model_copy(update={"validation": dict.fromkeys((*HONEST, "site-d"), of_dice(0.9)), "good": 1})
    before = Checkpoint(state, good.weights, good.momentum)
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


def test_hundreds_of_changed_replies_end_no_run_and_change_no_honest_weight(
    recordings: Recordings, tmp_path: Path
) -> None:
    found = [recordings[kind] for kind in KINDS]
    tallies = [
        fuzz(found, 140, tmp_path / "rounds", 3),
        fuzz_facts(found, 60, 3),
        fuzz_sums(found, 30, 3),
        fuzz_bytes(found, 60, tmp_path / "objects", 3),
    ]
    assert [tally.ended for tally in tallies] == [[], [], [], []]
    assert sum(tally.sent for tally in tallies) >= 400
    assert not sum(tally.changed + tally.logged for tally in tallies)
