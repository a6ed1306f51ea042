"""Sets of arrays beside a network's weights: a site or a coordinator that sends others than its strategy declares."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, Message, RecordDict

from msfl_client.rounds.app import build_app
from msfl_client.rounds.site_context import open_context
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import StudyConfig, parse_study
from msfl_common.errors import Code
from msfl_common.messages.arrays import ARRAYS, pack_weights
from msfl_common.messages.records import RoundTask, pack_task, unpack_refusal
from msfl_common.models.network import build_network, get_weights
from msfl_common.models.weights import Weights
from msfl_common.strategies.scaffold import CHANGE, CONTROL
from msfl_common.strategies.sets import flattened
from msfl_server.research.simulation.grid import InProcessGrid
from msfl_server.rounds.loop import run_rounds
from tests.server.rounds.test_loop import Recorder, grid_of, sites, start

__all__ = ["sites"]

Change = Callable[[np.ndarray, int], np.ndarray]  # type: ignore[type-arg]  # an update's values, and of how many sets


@pytest.fixture
def scaffold(tiny_study: StudyConfig) -> StudyConfig:
    settings = tiny_study.model_dump() | {"strategy": {"kind": "scaffold"}}
    settings["training"]["steps_per_round"] = 1
    settings["rounds"]["num_rounds"] = 2
    return parse_study(StudyConfig.model_validate(settings).model_dump_json())


def filled(value: float) -> Change:
    """The last of the answered set's arrays has this value."""

    def change(values: np.ndarray, _: int) -> np.ndarray:  # type: ignore[type-arg]
        return np.append(values[:-1], np.float32(value))

    return change


CHANGES: dict[str, Change] = {
    "not a number": filled(np.nan),
    "1e30": filled(1e30),
    "infinite": filled(-np.inf),
    "missing": lambda values, size: values[:size],
    "short": lambda values, _: values[:-1],
    "once more": lambda values, size: np.append(values, values[size:]),
    "other type": lambda values, _: values.astype(np.float64),
}


@pytest.mark.parametrize("how", CHANGES)
def test_a_site_whose_sets_are_not_as_declared_is_named_and_the_round_goes_on(
    sites: list[SiteConfig], scaffold: StudyConfig, tmp_path: Path, how: str
) -> None:
    first = start(scaffold)
    size = sum(value.size for value in first.values())

    def tamper(node: int, reply: Message) -> Message:
        if node == 2 and ARRAYS in reply.content:
            (block,) = reply.content.array_records[ARRAYS].values()
            values = CHANGES[how](block.numpy().copy(), size)
            reply.content.array_records[ARRAYS]["block00000"] = Array(values)
        return reply

    recorder = Recorder()
    run_rounds(grid_of(sites, tamper), scaffold, first, tmp_path / "out", recorder)
    history = recorder.states[-1].history
    assert [record.sites_ok for record in history] == [("site-a", "site-c")] * 2
    assert {failure.site for record in history for failure in record.sites_failed} == {"site-b"}


def asked(site: SiteConfig, study: StudyConfig, arrays: Weights, number: int = 1) -> RecordDict:
    """What a site answers to a request to train that brings these arrays."""
    content = pack_task(RoundTask(study, number))
    content[ARRAYS] = pack_weights(arrays)
    grid = InProcessGrid(build_app(lambda _: site, cache_answers=True, agreed=study), 1)
    (reply,) = grid.send_and_receive([Message(content, 1, "train")])
    return reply.content


def sets_of(first: Weights, name: str, value: float) -> Weights:
    return flattened({}, {name: {of: np.full_like(one, value) for of, one in first.items()}})


def test_a_coordinator_whose_sets_are_not_as_declared_is_refused(
    sites: list[SiteConfig], scaffold: StudyConfig
) -> None:
    site, first = sites[0], get_weights(build_network(scaffold))
    open_context.cache_clear()
    right = first | sets_of(first, CONTROL, 0.0)
    wrong = [
        first,
        right | sets_of(first, CHANGE, 0.0),
        right | {"../../x": np.zeros(4, np.float32)},
        first | sets_of(first, CONTROL, np.nan),
        first | sets_of(first, CONTROL, 1e30),
        {name: value.astype(np.float64) for name, value in right.items()},
    ]
    for arrays in wrong:
        refusal = unpack_refusal(asked(site, scaffold, arrays))
        assert refusal is not None
        assert refusal.code is Code.BAD_MODEL
    assert not (site.state / "strategy").exists()
    assert unpack_refusal(asked(site, scaffold, right)) is None
    (kept,) = (site.state / "strategy").rglob("*.safetensors")
    assert kept.name == "000001.safetensors"


def test_another_request_of_a_round_neither_reads_nor_moves_what_is_kept(
    sites: list[SiteConfig], scaffold: StudyConfig
) -> None:
    site, first = sites[0], get_weights(build_network(scaffold))
    open_context.cache_clear()
    right = first | sets_of(first, CONTROL, 0.0)
    once = asked(site, scaffold, right)
    (kept,) = (site.state / "strategy").rglob("*.safetensors")
    before = kept.read_bytes()
    again = asked(site, scaffold, right)
    assert [*again.array_records[ARRAYS].values()] == [*once.array_records[ARRAYS].values()]
    refused = [
        asked(site, scaffold, first | sets_of(first, CONTROL, 0.5)),
        asked(site, scaffold.model_copy(update={"strategy": None}), first),
    ]
    assert all((found := unpack_refusal(one)) and found.code is Code.ANSWERED for one in refused)
    assert kept.read_bytes() == before
    assert len([*(site.state / "strategy").rglob("*.safetensors")]) == 1
