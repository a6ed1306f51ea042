"""How one site's reply in a recorded round is changed, and what must follow from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from flwr.app import Array, Error, RecordDict

from msfl_server.rounds.checkpoint import Checkpoint
from tests.attacks import recorded
from tests.attacks.mutated_replies import put
from tests.attacks.recorded import (
    Recording,
    absent,
    classifier,
    play,
    same,
)

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


@pytest.fixture(autouse=True)
def no_pauses() -> Any:
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
