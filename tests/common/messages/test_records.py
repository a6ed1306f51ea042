"""What crosses the wire comes back equal, and what does not fit is refused."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from numpy.typing import NDArray

from msfl_common.config.study import StudyConfig
from msfl_common.errors import Code, ConfigError, UpdateError
from msfl_common.messages import arrays as messages_arrays
from msfl_common.messages.arrays import BLOCK_VALUES
from msfl_common.messages.records import (
    ModelUpdate,
    NodeFacts,
    Refusal,
    RoundTask,
    ValidationMetrics,
    pack_facts,
    pack_metrics,
    pack_refusal,
    pack_task,
    pack_update,
    unpack_facts,
    unpack_metrics,
    unpack_refusal,
    unpack_task,
    unpack_task_weights,
    unpack_update,
)
from msfl_common.metrics.intervals import Estimate
from msfl_common.models.weights import Weights

WEIGHTS: Weights = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.ones(1, np.float32)}
NAMES = frozenset({"dsc", "hd95_mm"})


VECTOR = np.concatenate([value.reshape(-1) for value in WEIGHTS.values()])


def update_with(**blocks: object) -> RecordDict:
    """A good update but for the blocks named; None leaves one out."""
    arrays = {name: value for name, value in {"block00000": VECTOR, **blocks}.items() if value is not None}
    numbers = MetricRecord({"num-examples": 9, "train_loss": 0.5, "seconds": 1.0})
    return RecordDict(
        {"arrays": ArrayRecord({name: Array(value) for name, value in arrays.items()}), "metrics": numbers}
    )


def test_task_and_weights_round_trip() -> None:
    task = RoundTask(StudyConfig(name="pilot"), 3)
    content = pack_task(task, WEIGHTS)
    assert unpack_task(content) == task
    weights = unpack_task_weights(content, expected=WEIGHTS)
    assert all(np.array_equal(weights[name], WEIGHTS[name]) for name in WEIGHTS)


def test_update_round_trips() -> None:
    update = unpack_update(pack_update(ModelUpdate(WEIGHTS, 9, 0.5, 1.5)), expected=WEIGHTS)
    assert (update.num_cases, update.train_loss, update.seconds) == (9, 0.5, 1.5)
    assert list(update.weights) == ["b", "a"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (update_with(block00000=None), "expected 1 blocks of weights, found 0"),
        (update_with(block00001=VECTOR), "expected 1 blocks of weights, found 2"),
        (update_with(block00000=VECTOR[:6]), r"block00000: expected float32\(7,\), found float32\(6,\)"),
        (update_with(block00000=VECTOR.reshape(1, 7)), r"block00000: expected float32\(7,\), found float32\(1, 7\)"),
        (update_with(block00000=VECTOR.astype(np.float64)), "block00000: expected float32"),
        (update_with(block00000=np.append(VECTOR[:6], np.float32(np.nan))), "a: 1 values are not finite"),
        (update_with(block00000=np.append(np.float32(np.inf), VECTOR[1:])), "b: 1 values are not finite"),
        (update_with(block00000=np.ones(10_000, np.float32)), "block00000: expected 28 bytes"),
        (RecordDict({"metrics": MetricRecord({"num-examples": 1})}), "expected the records"),
        (RecordDict({**update_with(), "note": ConfigRecord({"text": "x"})}), "expected the records"),
        (RecordDict(), "expected the records"),
    ],
)
def test_an_update_that_does_not_fit_is_refused(content: RecordDict, reason: str) -> None:
    with pytest.raises(UpdateError, match=reason):
        unpack_update(content, expected=WEIGHTS)


def test_an_update_with_a_pickle_inside_is_refused() -> None:
    content = update_with()
    content["arrays"]["block00000"] = Array("float32", (7,), "numpy.ndarray", b"\x80\x04K\x01.")
    with pytest.raises(UpdateError, match="decoded"):
        unpack_update(content, expected=WEIGHTS)


def test_large_weights_travel_in_blocks_that_cut_through_arrays() -> None:
    rng = np.random.default_rng(0)
    sizes = {"a": (3, 5), "long": (BLOCK_VALUES + 7,), "longer": (2, BLOCK_VALUES), "end": (1,)}
    weights = {name: rng.random(size, dtype=np.float32) for name, size in sizes.items()}
    content = pack_update(ModelUpdate(weights, 9, 0.5, 1.5))
    assert [array.shape for array in content["arrays"].values()] == [(BLOCK_VALUES,)] * 3 + [(23,)]
    received = unpack_update(content, expected=weights).weights
    assert list(received) == list(weights)
    assert all(np.array_equal(received[name], weights[name]) for name in weights)


@pytest.mark.parametrize("count", [0, -3, 2.5, math.nan])
def test_a_case_count_must_be_a_whole_number_above_zero(count: float) -> None:
    content = update_with()
    content["metrics"]["num-examples"] = count
    with pytest.raises(UpdateError):
        unpack_update(content, expected=WEIGHTS)


def test_metrics_round_trip_and_keep_what_is_undefined() -> None:
    sent = {"dsc": Estimate(0.7, 9, 0.1, 0.5, 0.9), "hd95_mm": Estimate(4.0, 1, math.nan, math.nan, math.nan)}
    received = unpack_metrics(pack_metrics(ValidationMetrics(sent, 9, 2.0)), NAMES)
    assert received.estimates["dsc"] == sent["dsc"]
    assert received.estimates["hd95_mm"].mean == 4.0
    assert math.isnan(received.estimates["hd95_mm"].standard_error)


@pytest.mark.parametrize("extra", ["dsc.of_case_7", "patient.mean"])
def test_a_number_the_study_does_not_know_is_refused(extra: str) -> None:
    content = pack_metrics(ValidationMetrics({"dsc": Estimate(0.7, 9, 0.1, 0.5, 0.9)}, 9, 2.0))
    content["metrics"][extra] = 0.5
    with pytest.raises(UpdateError):
        unpack_metrics(content, NAMES)


def cells_of(*groups: tuple[float, float, float]) -> NDArray[np.float64]:
    bins_CG3 = np.zeros((1, 10, 3))
    bins_CG3[0, : len(groups)] = groups
    return bins_CG3


SCORES = ValidationMetrics(
    {"auroc": Estimate(0.7, 11, 0.1, 0.5, 0.9)},
    11,
    2.0,
    cells_of((0.2, 6, 1), (0.6, 5, 4)),
    np.array([[5.0, 1], [2, 3]]),
)


def test_cells_round_trip() -> None:
    content = pack_metrics(SCORES)
    assert {name: array.shape for name, array in content["arrays"].items()} == {
        "cells": (1, 10, 3), "confusion": (2, 2),
    }  # fmt: skip
    received = unpack_metrics(content, frozenset({"auroc"}), num_classes=2, min_patients=5)
    assert received == SCORES
    assert np.array_equal(received.arrays["cells"], SCORES.arrays["cells"])
    assert np.array_equal(received.arrays["confusion"], SCORES.arrays["confusion"])


def changed(**fields: object) -> RecordDict:
    return pack_metrics(replace(SCORES, **fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("content", "num_classes", "reason"),
    [
        (changed(score_bins=cells_of((0.2, 6, 1), (0.6, 4, 4))), 2, "at least 5 cases in a group, found 4"),
        (changed(score_bins=cells_of((0.2, 6, 1), (0.6, 6, 4))), 2, "11 cases in all groups or none"),
        (changed(score_bins=cells_of((0.2, 6, math.nan), (0.6, 5, 4))), 2, "finite"),
        (changed(score_bins=np.zeros((1, 11, 3))), 2, "cells: expected"),
        (changed(score_bins=np.zeros((1, 10, 3), np.float32)), 2, "cells: expected"),
        (changed(confusion=np.array([[5.0, 1], [2, 4]])), 2, "add up to 11"),
        (changed(score_bins=None), 2, "expected the arrays"),
        (changed(score_bins=None, confusion=None), 2, "expected the records"),
        (changed(), 0, "expected the records"),
        (changed(), 3, "cells: expected"),
    ],
)
def test_cells_that_do_not_fit_are_refused(content: RecordDict, num_classes: int, reason: str) -> None:
    with pytest.raises(UpdateError, match=reason):
        unpack_metrics(content, frozenset({"auroc"}), num_classes, min_patients=5)


def test_a_segmentation_sends_no_arrays() -> None:
    content = pack_metrics(ValidationMetrics({"dsc": Estimate(0.7, 9, 0.1, 0.5, 0.9)}, 9, 2.0))
    assert set(content) == {"metrics"}


def test_facts_and_refusals_round_trip() -> None:
    facts = NodeFacts("site-a", "0.1.0", 35)
    assert unpack_facts(pack_facts(facts)) == facts
    refusal = Refusal(Code.NO_CASES, "site-a")
    assert unpack_refusal(pack_refusal(refusal)) == refusal
    assert unpack_refusal(pack_facts(facts)) is None


def test_an_unknown_refusal_code_tells_nothing() -> None:
    content = RecordDict({"refusal": ConfigRecord({"code": "sub-007 is broken", "site": "a"})})
    assert unpack_refusal(content) == Refusal(Code.INTERNAL, "a")


def test_a_hostile_study_is_refused() -> None:
    content = RecordDict({"task": ConfigRecord({"study": '{"name": "x", "shell": "rm"}', "round": 1})})
    with pytest.raises(ConfigError, match="shell: unknown key"):
        unpack_task(content)


def test_weights_of_feature_models_travel_to_the_last_bit() -> None:
    weights = {"mean": np.array([1 / 3, np.pi]), "trees": np.arange(40.0).reshape(2, 4, 5)}
    like = {"mean": np.zeros(2), "trees": np.empty((0, 4, 5))}
    found = unpack_update(pack_update(ModelUpdate(weights, 7, 0.5, 1.0)), like)
    assert all(np.array_equal(found.weights[name], weights[name]) for name in weights)
    none_yet = weights | {"trees": np.empty((0, 4, 5))}
    assert unpack_update(pack_update(ModelUpdate(none_yet, 7, 0.5, 1.0)), like).weights["trees"].shape == (0, 4, 5)


@pytest.mark.parametrize(
    ("trees", "line"),
    [
        (np.ones((2, 4, 4)), "do not make whole rows of"),
        (np.ones((2, 4, 5), np.float32), "one type"),
        (np.full((2, 4, 5), np.nan), "40 values are not finite"),
    ],
)
def test_an_array_of_any_length_is_whole_and_finite(trees: np.ndarray, line: str) -> None:
    like = {"mean": np.zeros(2), "trees": np.empty((0, 4, 5))}
    with pytest.raises((UpdateError, ValueError), match=line):
        unpack_update(pack_update(ModelUpdate({"mean": np.zeros(2), "trees": trees}, 7, 0.5, 1.0)), like)


def test_float32_is_not_taken_for_float64() -> None:
    content = pack_update(ModelUpdate({"mean": np.zeros(2, np.float32)}, 7, 0.5, 1.0))
    with pytest.raises(UpdateError, match="expected float64"):
        unpack_update(content, {"mean": np.zeros(2)})


def test_an_array_of_any_length_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages_arrays, "MOST_FREE_VALUES", 2 * BLOCK_VALUES)
    like = {"trees": np.empty((0, BLOCK_VALUES))}
    for rows, fits in ((2, True), (3, False)):
        content = pack_update(ModelUpdate({"trees": np.ones((rows, BLOCK_VALUES))}, 7, 0.5, 1.0))
        if fits:
            assert len(unpack_update(content, like).weights["trees"]) == rows
        else:
            with pytest.raises(UpdateError, match="at most"):
                unpack_update(content, like)


@pytest.mark.parametrize(
    ("name", "value"), [("split", "training"), ("threshold", 1.5), ("threshold", "0.5"), ("threshold", 0.4)]
)
def test_a_request_for_other_patients_or_thresholds_is_refused(name: str, value: str | float) -> None:
    content = pack_task(RoundTask(StudyConfig(name="pilot"), 1))
    content.config_records["task"][name] = value
    with pytest.raises(ConfigError, match=r"expected (a split|the threshold 0\.5 in validation)"):
        unpack_task(content)
