"""A hostile or broken site beside three honest ones: each lie is refused by name, and changes nothing of theirs."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ConfigRecord, Error, RecordDict

from msfl_common.feature_models.trees import FEATURE, RIGHT, ROOT, VALUES
from msfl_server.rounds.exchange import Presence
from msfl_server.rounds.failures import UNREADABLE
from msfl_server.rounds.roster import Roster, meet_sites
from tests.attacks import recorded
from tests.attacks.fuzzing import fuzz, fuzz_bytes, fuzz_facts, fuzz_sums
from tests.attacks.lies import (
    HONEST,
    KINDS,
    Change,
    Recordings,
    arrays,
    expect_refused,
    lie,
    map_block,
    map_sums,
    map_trees,
    no_pauses,
    numbers,
    set_block,
    set_number,
)
from tests.attacks.mutated_replies import array_of, npy, npy_claiming, put
from tests.attacks.recorded import (
    Recording,
    absent,
    honest,
    learned,
    meet,
    play,
    same,
)

__all__ = ["no_pauses"]

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
