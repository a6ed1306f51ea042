"""A model's way there and back: through files between server process and SuperLink, in calls to the site."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from flwr.app import Message
from tests.integration.deployment import Deployment, deployment, wait_for
from tests.kits import trust_at

from msfl_client.connection.fleet_client import Fleet, join
from msfl_client.connection.message_limits import bounds_of
from msfl_client.site.keys import load_key
from msfl_common.config.study import StudyConfig
from msfl_common.messages.records import (
    ModelUpdate,
    RoundTask,
    pack_task,
    pack_update,
    unpack_task_weights,
    unpack_update,
)
from msfl_server.flower.control import LinkAddress, connect
from msfl_server.flower.coordinator import control_secret, link_settings
from msfl_server.flower.grid import DeployedGrid
from msfl_server.flower.server_process import open_run
from msfl_server.study.server_config import load_server

SITE = "site-a"
WEIGHTS = {
    "large": np.random.default_rng(0).random((2, 3_000_000), dtype=np.float32),
    "small": np.arange(7, dtype=np.float32),
}


@pytest.fixture(scope="module")
def made(tiny: StudyConfig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    base = tmp_path_factory.mktemp("transport")
    with deployment(base, tiny.model_copy(update={"name": "transport"}), {SITE: base}) as made:
        folder, server = made.study, load_server(made.study.server_file)
        made._spawn("superlink", link_settings(folder, server).arguments())
        yield made


@pytest.fixture
def grid(made: Deployment) -> Iterator[DeployedGrid]:
    folder, port = made.study, load_server(made.study.server_file).control_port
    link = LinkAddress(port, folder.ca_certificate, control_secret(folder), folder.database)

    def authorised() -> bool:
        try:
            with connect(link) as control:
                control.authorise({SITE: folder.public_key_file(SITE)})
        except httpx.HTTPError:
            return False
        return True

    wait_for("the SuperLink", authorised, 120)
    with open_run(link) as (grid, _):
        yield grid


@pytest.fixture
def fleet(made: Deployment, grid: DeployedGrid) -> Iterator[Fleet]:
    address = f"localhost:{load_server(made.study.server_file).port}"
    key, trust = load_key(made.site(SITE) / "site.key"), trust_at(made.site(SITE))
    with join(address, trust, key, None, bounds_of(WEIGHTS)) as fleet:
        yield fleet


def in_flight(made: Deployment) -> list[Path]:
    return list(made.study.database.with_name("superlink.db.objects").iterdir())


def test_a_large_model_there_and_back_as_it_was(
    made: Deployment, grid: DeployedGrid, fleet: Fleet, monkeypatch: pytest.MonkeyPatch, tiny: StudyConfig
) -> None:
    through_the_port: list[int] = []
    for name in ("PushObject", "PullObject"):
        call = getattr(grid._runtime_client, name)

        def counted(request: object, call=call) -> object:  # type: ignore[no-untyped-def]
            answer = call(request)
            through_the_port.extend(len(getattr(side, "object_content", b"")) for side in (request, answer))
            return answer

        monkeypatch.setattr(grid._runtime_client, name, counted)

    request = Message(pack_task(RoundTask(tiny, 1), WEIGHTS), fleet.node_id, "train", ttl=60)
    (asked,) = grid.push_messages([request])
    assert sum(path.stat().st_size for path in in_flight(made)) == pytest.approx(24e6, rel=0.01)
    message = fleet.receive()
    assert message is not None
    assert in_flight(made) == []
    arrived = unpack_task_weights(message.content, WEIGHTS)
    assert all((arrived[name] == value).all() for name, value in WEIGHTS.items())

    trained = {name: value + 1 for name, value in WEIGHTS.items()}
    assert grid.pull_messages([asked]) == []
    fleet.send(Message(pack_update(ModelUpdate(trained, 7, 0.5, 1.0)), reply_to=message))
    assert len(in_flight(made)) == 5, "two blocks, of four pieces and one"
    (reply,) = grid.pull_messages([asked])
    assert in_flight(made) == []
    update = unpack_update(reply.content, WEIGHTS)
    assert all((update.weights[name] == value).all() for name, value in trained.items())
    assert sum(through_the_port) < 20_000


def test_an_update_of_which_a_part_is_here_is_waited_for(
    made: Deployment, grid: DeployedGrid, fleet: Fleet, monkeypatch: pytest.MonkeyPatch, tiny: StudyConfig
) -> None:
    (asked,) = grid.push_messages([Message(pack_task(RoundTask(tiny, 2), WEIGHTS), fleet.node_id, "train", ttl=60)])
    message = fleet.receive()
    assert message is not None
    seen: list[int] = []
    push, one_looks = fleet._client.PushObject, threading.Lock()

    def looked_at(sent: object) -> object:
        answer = push(sent)  # type: ignore[arg-type]
        with one_looks:
            if not seen:
                seen.append(len(grid.pull_messages([asked])))
        return answer

    monkeypatch.setattr(fleet._client, "PushObject", looked_at)
    fleet.send(Message(pack_update(ModelUpdate(WEIGHTS, 7, 0.5, 1.0)), reply_to=message))
    assert seen == [0]
    (reply,) = grid.pull_messages([asked])
    update = unpack_update(reply.content, WEIGHTS)
    assert all((update.weights[name] == value).all() for name, value in WEIGHTS.items())
