"""Strangers without a key, and a site that means harm, against a real SuperLink: the others do not notice."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from flwr.app import ArrayRecord, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import PushMessagesRequest, PushMessagesResponse
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ObjectTree,
    PullObjectRequest,
    PushObjectRequest,
)
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree

from msfl_client.connection.fleet_client import DisconnectedError, Fleet, join
from msfl_client.connection.message_limits import Bounds
from msfl_client.site.keys import load_key, make_key
from msfl_common.config.study import StudyConfig
from msfl_server.flower.control import LinkAddress, connect
from msfl_server.flower.coordinator import link_address, link_settings
from msfl_server.flower.grid import DeployedGrid
from msfl_server.flower.server_process import open_run
from msfl_server.rounds.failures import TOO_LARGE
from msfl_server.rounds.reply_bounds import REST
from msfl_server.study.server_config import load_server
from tests.attacks.floods import Flood
from tests.integration.deployment import ENVIRONMENT, Deployment, deployment, wait_for
from tests.kits import trust_at

HONEST, HOSTILE = "site-a", "site-b"
REPOSITORY = Path(__file__).parents[2]


@dataclass
class Target:
    """A SuperLink with two registered sites."""

    made: Deployment
    link: LinkAddress
    port: int

    @property
    def process(self) -> psutil.Process:
        return psutil.Process(self.made.processes["superlink"].pid)

    def rss_mb(self) -> float:
        return float(self.process.memory_info().rss / 1e6)

    def key(self, site: str) -> Path:
        return self.made.site(site) / "site.key"

    def log_lines(self) -> int:
        return len((self.made.base / "superlink.log").read_text().splitlines())

    def on_disk(self) -> list[Path]:
        return list(self.made.study.database.with_name("superlink.db.objects").iterdir())

    def join(self, site: str):  # type: ignore[no-untyped-def]
        trust = trust_at(self.made.site(site))
        return join(f"localhost:{self.port}", trust, load_key(self.key(site)), None, Bounds(10**8, 1000))

    def flood(self, kind: str, seconds: float, connections: int = 200, key: str | None = None):  # type: ignore[no-untyped-def]
        command = [sys.executable, "-m", "tests.attacks.floods", kind, self.port, seconds, connections]
        command += [] if key is None else [self.key(key)]
        return subprocess.Popen(list(map(str, command)), cwd=REPOSITORY, env=ENVIRONMENT, stdout=subprocess.PIPE)

    def connect(self, seconds: float = 5.0) -> ssl.SSLSocket:
        """A connection; a flood's may have used up what its address may open a second."""
        context = ssl.create_default_context(cafile=str(self.made.study.ca_certificate))
        end = time.monotonic() + seconds
        while True:
            plain = socket.create_connection(("localhost", self.port), timeout=seconds)
            try:
                return context.wrap_socket(plain, server_hostname="localhost")
            except (ConnectionError, ssl.SSLError):
                assert time.monotonic() < end
                time.sleep(0.1)

    def say(self, data: bytes, seconds: float = 5.0) -> bytes:
        """What is answered to bytes of ours; empty if the connection is just closed."""
        with closing(self.connect(seconds)) as stream:
            stream.sendall(data)
            answer = b""
            try:
                while piece := stream.recv(65536):
                    answer += piece
            except (ConnectionError, ssl.SSLError):
                pass
            return answer


@pytest.fixture(scope="module")
def target(tiny: StudyConfig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    base = tmp_path_factory.mktemp("flood")
    with deployment(
        base / "federation", tiny.model_copy(update={"name": "flood"}), {HONEST: base, HOSTILE: base}
    ) as made:
        folder, server = made.study, load_server(made.study.server_file)
        made._spawn("superlink", link_settings(folder, server).arguments())
        link = link_address(folder, server)

        def authorised() -> bool:
            try:
                with connect(link) as control:
                    control.authorise({name: folder.public_key_file(name) for name in (HONEST, HOSTILE)})
            except httpx.HTTPError:
                return False
            return True

        wait_for("the SuperLink", authorised, 120)
        yield Target(made, link, server.port)
        process = made.processes.pop("superlink")
        process.terminate()
        process.wait(20)
        assert not list(folder.database.parent.glob(f"{folder.database.name}*")), "nothing of it stays on disk"


@pytest.fixture(scope="module")
def grid(target: Target) -> Iterator[DeployedGrid]:
    with open_run(target.link) as (grid, _):
        yield grid


@pytest.fixture(scope="module")
def honest(target: Target, grid: DeployedGrid) -> Iterator[Fleet]:
    with target.join(HONEST) as fleet:
        yield fleet


@pytest.fixture
def hostile(target: Target, grid: DeployedGrid) -> Iterator[Fleet]:
    with target.join(HOSTILE) as fleet:
        yield fleet


def arrays(size: int, seed: int = 0) -> RecordDict:
    return RecordDict({"arrays": ArrayRecord([np.random.default_rng(seed).random(size)])})


def ask(grid: DeployedGrid, fleet: Fleet, size: int = 10, seconds: float = 60) -> tuple[str, Message]:
    """A request on its way, and as the site has it."""
    (asked,) = grid.push_messages([Message(arrays(size), fleet.node_id, "train", ttl=seconds)])
    message = fleet.receive()
    assert message is not None
    return asked, message


def answer(grid: DeployedGrid, fleet: Fleet, asked: str, message: Message, seed: int = 0) -> None:
    """An honest answer arrives as it was sent."""
    content = arrays(2000, seed)
    fleet.send(Message(content, reply_to=message))
    (reply,) = grid.pull_messages([asked])
    assert (reply.content["arrays"].to_numpy_ndarrays()[0] == content["arrays"].to_numpy_ndarrays()[0]).all()  # type: ignore[union-attr]


def announce(fleet: Fleet, reply: Message, tree: ObjectTree | None = None) -> PushMessagesResponse:
    """What the SuperLink says to a reply's head."""
    reply.metadata.__dict__["_message_id"] = reply.object_id
    return fleet._client.PushMessages(
        PushMessagesRequest(
            node=fleet._node,
            messages_list=[message_to_proto(remove_content_from_message(reply))],
            message_object_trees=[tree or get_object_tree(reply)],
            clientapp_runtime_list=[0.0],
        )
    )


def names_of(reply: Message) -> set[str]:
    return set(get_all_nested_objects(reply))


# --- strangers


@pytest.mark.parametrize("kind", ["half_a_handshake", "large_bodies", "junk", "many_headers"])
def test_a_flood_of_strangers_locks_nobody_out(target: Target, grid: DeployedGrid, honest: Fleet, kind: str) -> None:
    answer(grid, honest, *ask(grid, honest))
    before, lines = target.rss_mb(), target.log_lines()
    flood = target.flood(kind, 2.5)
    peak, turns = before, 0
    while flood.poll() is None:
        answer(grid, honest, *ask(grid, honest))
        peak, turns = max(peak, target.rss_mb()), turns + 1
    assert int(flood.communicate()[0]) >= 50, "it was a flood"
    assert turns >= 3
    assert peak < 300
    assert target.rss_mb() < 1.2 * before
    assert target.log_lines() - lines < 60


def test_a_site_comes_online_beside_a_flood(target: Target, grid: DeployedGrid) -> None:
    flood = target.flood("half_a_head", 4.0, 1100)
    time.sleep(1.5)
    start = time.monotonic()
    with target.join(HOSTILE) as fleet:
        assert fleet.receive() is None
    assert time.monotonic() - start < 5
    assert flood.poll() is None
    flood.communicate()


def call(path: str, *headers: str, method: str = "POST") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "host: localhost", *headers, "", ""]).encode()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (call("/v1/fleet/push-object", "content-length: 5000000"), 401),  # before a byte of it is sent
        (call("/v1/fleet/push-object", "content-length: 1000000000"), 413),
        (call("/v1/fleet/push-object", "content-length: 99999999999999999999"), 400),
        (call("/v1/fleet/push-messages", "content-length: 300000"), 413),
        (call("/v1/fleet/pull-messages", "content-length: 20000"), 413),
        (call("/v1/fleet/push-object", "transfer-encoding: chunked"), 411),
        (call("/v1/fleet/push-object"), 411),
        (call("/v1/fleet/push-object", "content-length: -1"), 400),
        (call("/v1/fleet/get-fab", "content-length: 0"), 404),
        (call("/v1/fleet/register-node", "content-length: 0"), 404),
        (call("/msfl/refused/x", "content-length: 0"), 404),
        (call("/v1/fleet/pull-messages", "content-length: 0", method="GET"), 404),
        (call("/v1/fleet/pull-messages", "x: " + 9000 * "y"), 431),
        (call("/v1/fleet/pull-messages", *["x: y"] * 2000), 431),
        (call("/" + 9000 * "x"), 431),
        (call("/", "connection: upgrade", "upgrade: websocket"), 404),
        (b"\x16\x03\x01" + 100 * b"\0", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
    ],
)
def test_a_call_is_refused_by_its_first_lines(target: Target, data: bytes, status: int) -> None:
    answered = target.say(data)
    assert answered.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"connection: close" in answered
    assert len(answered) < 300


@pytest.mark.parametrize("fault", ["signature", "other key", "no time", "not base64"])
def test_a_signature_that_is_not_a_sites(target: Target, tmp_path: Path, fault: str) -> None:
    flood = Flood(target.port, 0.0, load_key(target.key(HONEST)))
    head = flood.head("/v1/fleet/push-object", 5_000_000).decode()
    lines = head.split("\r\n")
    moment = next(line for line in lines if line.startswith("flwr-timestamp"))
    if fault == "signature":
        head = head.replace("flwr-signature: M", "flwr-signature: N")
    elif fault == "other key":
        make_key(tmp_path / "other.key", "other")
        head = Flood(target.port, 0.0, load_key(tmp_path / "other.key")).head("/v1/fleet/push-object", 5).decode()
    elif fault == "no time":
        head = head.replace(moment + "\r\n", "")
    else:
        head = head.replace("flwr-signature: M", "flwr-signature: *")
    assert target.say(head.encode()).startswith(b"HTTP/1.1 401 ")


def test_a_signed_call_says_no_more_than_it_may_carry(target: Target, honest: Fleet) -> None:
    flood = Flood(target.port, 0.0, load_key(target.key(HONEST)))
    assert target.say(flood.head("/v1/fleet/push-object", 5_000_000)).startswith(b"HTTP/1.1 413 "), (
        "it was asked nothing"
    )


# --- a registered site


def test_a_reply_larger_than_asked_for_is_cut_off(
    target: Target, grid: DeployedGrid, honest: Fleet, hostile: Fleet
) -> None:
    other = ask(grid, honest)
    asked, message = ask(grid, hostile)
    before = target.rss_mb()
    with pytest.raises(DisconnectedError, match="413"):
        hostile.send(Message(arrays(12_500_000), reply_to=message))  # 100 MB, where 16 kB are expected
    (reply,) = grid.pull_messages([asked])
    assert reply.error.code == TOO_LARGE
    assert sum(path.stat().st_size for path in target.on_disk()) == 0
    assert target.rss_mb() - before < 60
    answer(grid, honest, *other)


def test_a_reply_of_more_objects_than_asked_for_is_refused_at_once(
    target: Target, grid: DeployedGrid, hostile: Fleet
) -> None:
    asked, message = ask(grid, hostile)
    many = ArrayRecord([np.zeros(2) + number for number in range(3 * REST.num_objects)])
    with pytest.raises(httpx.HTTPStatusError, match="413"):
        announce(hostile, Message(RecordDict({"arrays": many}), reply_to=message))
    (reply,) = grid.pull_messages([asked])
    assert reply.error.code == TOO_LARGE


def test_objects_of_another_site_cannot_be_guessed_fetched_or_removed(
    grid: DeployedGrid, honest: Fleet, hostile: Fleet
) -> None:
    """The hostile site knows every byte that the other one sends."""
    theirs, ours = ask(grid, honest), ask(grid, hostile)
    content, run_id = arrays(2000), theirs[1].metadata.run_id
    fleet_reply = Message(content, reply_to=theirs[1])
    honest.send(fleet_reply)
    reply = Message(content, reply_to=ours[1])
    told = announce(hostile, reply)
    assert set(told.objects_to_push) == names_of(reply), "whether they are there already is not told"
    for name in names_of(fleet_reply):
        found = hostile._client.PullObject(PullObjectRequest(node=hostile._node, run_id=run_id, object_id=name))
        assert not found.object_found
    hostile._client.ConfirmMessageReceived(
        ConfirmMessageReceivedRequest(node=hostile._node, run_id=run_id, message_object_id=fleet_reply.object_id)
    )
    (arrived,) = grid.pull_messages([theirs[0]])
    assert (arrived.content["arrays"].to_numpy_ndarrays()[0] == content["arrays"].to_numpy_ndarrays()[0]).all()  # type: ignore[union-attr]


def test_objects_announced_in_advance_stand_in_nobodys_way(grid: DeployedGrid, honest: Fleet, hostile: Fleet) -> None:
    """Announced with parts that they do not have, they could not be announced as they are."""
    theirs, ours = ask(grid, honest), ask(grid, hostile)
    victim = Message(arrays(2000, 5), reply_to=theirs[1])
    reply = Message(arrays(3), reply_to=ours[1])
    reply.metadata.__dict__["_message_id"] = reply.object_id
    wrong = [ObjectTree(object_id=name, children=[ObjectTree(object_id=64 * "0")]) for name in names_of(victim)]
    announce(hostile, reply, ObjectTree(object_id=reply.object_id, children=wrong))
    answer(grid, honest, *theirs, seed=5)


@pytest.mark.parametrize("about", ["nothing", "another's", "answered"])
def test_of_a_reply_that_nobody_asked_for_nothing_is_kept(
    target: Target, grid: DeployedGrid, honest: Fleet, hostile: Fleet, about: str
) -> None:
    theirs, ours = ask(grid, honest), ask(grid, hostile)
    reply = Message(arrays(100_000), reply_to=ours[1])
    if about == "answered":
        hostile.send(Message(arrays(5), reply_to=ours[1]))
        assert len(grid.pull_messages([ours[0]])) == 1
    else:
        unasked = 64 * "a" if about == "nothing" else theirs[0]
        reply.metadata.__dict__["_reply_to_message_id"] = unasked
    told = announce(hostile, reply)
    assert list(told.objects_to_push) == []
    for name, item in get_all_nested_objects(reply).items():
        pushed = hostile._client.PushObject(
            PushObjectRequest(
                node=hostile._node,
                run_id=reply.metadata.run_id,
                object_id=name,
                object_content=item.deflate()[:60_000],
                session_id=told.session_id,
            )
        )
        assert not pushed.stored
    assert target.on_disk() == []
    answer(grid, honest, *theirs)


def test_objects_for_anothers_reply_are_not_taken(grid: DeployedGrid, honest: Fleet, hostile: Fleet) -> None:
    theirs = ask(grid, honest)
    reply = Message(arrays(20), reply_to=theirs[1])
    told = announce(honest, reply)
    item = get_all_nested_objects(reply)[told.objects_to_push[0]]
    request = PushObjectRequest(
        run_id=reply.metadata.run_id,
        object_id=item.object_id,
        object_content=item.deflate(),
        session_id=told.session_id,
    )
    request.node.CopyFrom(hostile._node)
    assert not hostile._client.PushObject(request).stored
    request.node.CopyFrom(honest._node)
    assert honest._client.PushObject(request).stored


@pytest.mark.long
def test_a_site_that_calls_without_pause_takes_its_own_turns_only(
    target: Target, grid: DeployedGrid, honest: Fleet
) -> None:
    def seconds() -> float:
        start = time.monotonic()
        for _ in range(5):
            answer(grid, honest, *ask(grid, honest))
        return time.monotonic() - start

    quiet = min(seconds() for _ in range(2))
    flood = target.flood("calls_of_a_site", 4.0, 50, HOSTILE)
    time.sleep(1.5)
    assert min(seconds() for _ in range(2)) < 4 * quiet + 0.5
    assert int(flood.communicate()[0]) < 600, "20 a second, and those that it had saved"
