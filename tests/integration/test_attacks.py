"""A hostile coordinator with its SuperLink in hand, against a real site's process: what it sends is never run.

What leaves the site in answer is a code from the fixed list, and each answer is a line in the ledger.
"""

from __future__ import annotations

import http.client
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import numpy as np
import pytest
from flwr.app import Array, Error, Message, RecordDict
from flwr.app.message import make_message
from flwr.proto.control_pb2 import ListNodesRequest, StartRunRequest
from flwr.proto.fab_pb2 import Fab
from flwr.proto.fleet_pb2 import PullMessagesRequest
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.inflatable.inflatable_object import get_object_id
from flwr.supernode import node_auth_http_interceptor
from tests.integration.deployment import wait_for
from tests.integration.hostile_link import HostileLink, request, telling
from tests.integration.hostile_requests import (
    APP,
    HOSTILE_STUDIES,
    LIES,
    OTHER_PATHS,
    PROTOBUF,
    WRONG_WEIGHTS,
    damaged,
    replaced,
    with_study,
)
from tests.integration.recording_proxy import Lie
from tests.integration.siege import SITE, STRANGER, Siege, ask, authorise, bundle, joined, lay_siege, run_of, show

from msfl_client.connection.fleet_client import DisconnectedError
from msfl_client.connection.message_limits import bounds_of
from msfl_client.egress.ledger import verify
from msfl_client.site.keys import make_key
from msfl_common import __version__
from msfl_common.config.study import StudyConfig
from msfl_common.errors import Code
from msfl_common.messages.records import NodeFacts, RoundTask, pack_facts, unpack_facts, unpack_update
from msfl_common.models.network import build_network, get_weights
from msfl_server.flower.control import connect
from msfl_server.flower.server_process import DeployedGrid
from msfl_server.rounds.roster import Roster, meet_sites
from msfl_server.study.server_config import load_server
from msfl_server.study.sites import remove_site

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def siege(tiny: StudyConfig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Siege]:
    """One SuperLink and one site's process for all attacks."""
    with lay_siege(tiny, tmp_path_factory.mktemp("siege")) as siege:
        yield siege


@pytest.fixture(autouse=True)
def unharmed(siege: Siege) -> Iterator[None]:
    """Before each attack the site is online; after it the same process is there, and nothing that was sent."""
    siege.wait_until_online()
    siege.lines = verify(siege.state / "ledger.jsonl")
    yield
    siege.proxy.tamper = lambda path, body: None
    siege.check_unharmed()


@pytest.fixture(scope="module")
def grid(siege: Siege) -> Iterator[DeployedGrid]:
    """A run with the right name and version, and hostile modules in its bundle."""
    with run_of(siege, bundle(siege.marker)) as grid:
        yield grid


def test_a_bundle_of_another_app_is_neither_fetched_nor_answered(siege: Siege) -> None:
    with run_of(siege, bundle(siege.marker, name="other", publisher="evil")) as grid:
        assert siege.refusal(ask(grid, siege.node, siege.task(), "query")) is Code.WRONG_APP
    with run_of(siege, bundle(siege.marker, version="9.9.9")) as grid:
        assert siege.refusal(ask(grid, siege.node, siege.task(), "query")) is Code.WRONG_APP


def test_an_agent_app_starts_nothing_at_the_site(siege: Siege) -> None:
    content = bundle(siege.marker, component="agentapp")
    with connect(siege.link) as control:
        control.stop_runs()
        run_id = control._control.StartRun(
            StartRunRequest(fab=Fab(content=content), user_prompt="open the door")
        ).run_id
        assert run_id
        task = control._runtime.AcquireTask(AcquireTaskRequest(supported_task_types=[TaskType.AGENT_APP])).task
        assert task.run_id == run_id
        control.stop_runs()


def test_installed_code_answers_a_run_that_shadows_its_names(siege: Siege, grid: DeployedGrid) -> None:
    reply = ask(grid, siege.node, siege.task(), "query")
    siege.check_line(reply)
    assert unpack_facts(reply) == NodeFacts(SITE, __version__, 0)


@pytest.mark.parametrize(("make", "code"), HOSTILE_STUDIES)
def test_a_hostile_study(siege: Siege, grid: DeployedGrid, make: Callable[[Siege], RecordDict], code: Code) -> None:
    hostile = siege.hand_out(telling(request(make(siege)), APP))
    assert siege.refusal(hostile.content()) is code


def test_the_real_superlink_hands_a_study_of_50_mb_on_and_the_site_does_not_take_it(
    siege: Siege, grid: DeployedGrid
) -> None:
    content = with_study(lambda study: "x" * 50_000_000)(siege)
    assert siege.refusal(ask(grid, siege.node, content)) is Code.BAD_MODEL


@pytest.mark.parametrize("make", WRONG_WEIGHTS)
@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_weights_that_do_not_fit(
    siege: Siege, grid: DeployedGrid, make: Callable[[Siege], RecordDict], kind: str
) -> None:
    hostile = siege.hand_out(telling(request(make(siege), kind), APP))
    assert siege.refusal(hostile.content()) is Code.BAD_MODEL


def test_the_real_superlink_hands_large_weights_on_and_the_site_does_not_take_them(
    siege: Siege, grid: DeployedGrid
) -> None:
    content = replaced(lambda siege, array: Array(np.zeros(25_000_000, np.float32)))(siege)
    assert siege.refusal(ask(grid, siege.node, content, "evaluate")) is Code.BAD_MODEL


@pytest.mark.parametrize("kind", ["train.evil", "query.files", "evaluate.x"])
def test_actions_that_the_app_does_not_have(siege: Siege, grid: DeployedGrid, kind: str) -> None:
    assert siege.refusal(ask(grid, siege.node, siege.task(), kind)) is Code.WRONG_APP


@pytest.mark.parametrize("kind", ["system", "train." + "x" * 300_000])
def test_strange_kinds_of_message(siege: Siege, kind: str) -> None:
    hostile = siege.hand_out(telling(request(siege.task(), kind), APP))
    assert siege.refusal(hostile.content()) is Code.WRONG_APP
    assert len((siege.state / "site.log").read_text().splitlines()[-1]) < 1000


@pytest.mark.parametrize("kind", ["run-fab", "[/bold]", "train\n2026-01-01 INFO all is well", "\x1b]0;title\x07"])
def test_kinds_of_message_that_flower_does_not_have_are_dropped(siege: Siege, kind: str) -> None:
    hostile = telling(request(siege.task()), APP)
    hostile.kind = kind
    siege.hand_out(hostile)
    siege.wait_for_reason("what answers is no study's server")
    assert hostile.pushed == {}
    written = (siege.state / "site.log").read_text() + siege.made.logs()
    assert "\x1b]" not in written
    assert "INFO all is well" not in written


@pytest.mark.parametrize(
    "app", [("", ""), ("msfl/msfl", "9.9.9"), ("msfl/msfl\n2026", __version__), ("x" * 10**6, "1")]
)
def test_forged_names_of_an_app(siege: Siege, app: tuple[str, str]) -> None:
    hostile = siege.hand_out(telling(request(siege.task()), app))
    assert siege.refusal(hostile.content()) is Code.WRONG_APP
    assert "\n2026 " not in (siege.state / "site.log").read_text()


@pytest.mark.parametrize("message", ["no content", "error"])
def test_a_message_without_content(siege: Siege, message: str) -> None:
    error = Error(1, "a sentence") if message == "error" else None
    made = make_message(request(RecordDict()).metadata, None if error else RecordDict(), error)
    hostile = telling(made, APP)
    if error is None:  # the codec cannot make one; a SuperLink can
        bare = b"Message  0\x00"
        hostile.tree, hostile.objects = ObjectTree(object_id=get_object_id(bare)), {get_object_id(bare): bare}
    siege.hand_out(hostile)
    assert siege.refusal(hostile.content()) in (Code.WRONG_APP, Code.BAD_MODEL)


@pytest.mark.parametrize("number", ["-1", "9" * 5000, "../../1", "\u0663", ""])
def test_round_numbers_in_the_head_of_a_message_end_nothing(siege: Siege, number: str) -> None:
    hostile = siege.hand_out(telling(request(siege.task(), "query", group=number), APP))
    reply = hostile.content()
    siege.check_line(reply)
    assert unpack_facts(reply).site == SITE


@pytest.mark.parametrize("times", [{"ttl": float("nan")}, {"ttl": -1e300}, {"created_at": float("inf")}])
def test_times_that_are_no_times(siege: Siege, times: dict[str, float]) -> None:
    hostile = siege.hand_out(telling(request(siege.task(), "query", **times), APP))
    wait_for("the message to be taken", lambda: hostile.handed_out)
    time.sleep(1)
    siege.lines = verify(siege.state / "ledger.jsonl")


def test_a_message_that_cannot_be_the_weights_is_not_fetched_whole(siege: Siege) -> None:
    bounds = bounds_of(get_weights(build_network(siege.study)))
    assert bounds.num_bytes < 3_000_000
    before = siege.rss_mb()
    piece = bytes(5_000_000)
    names = [f"{number:064x}" for number in range(40)]
    hostile = telling(request(siege.task()), APP)
    tree = ObjectTree(object_id=hostile.tree.object_id, children=[ObjectTree(object_id=name) for name in names])
    large = HostileLink(hostile.head, tree, dict.fromkeys(names, piece), APP)
    assert siege.refusal(siege.hand_out(large).content()) is Code.BAD_MODEL
    assert large.pulled < 5
    many = [ObjectTree(object_id="b" * 64)] * 50_000
    hostile.tree = ObjectTree(object_id=hostile.tree.object_id, children=many)
    assert siege.refusal(siege.hand_out(hostile).content()) is Code.BAD_MODEL
    assert hostile.pulled == 0
    assert siege.rss_mb() - before < 150


@pytest.mark.parametrize("damage", ["bytes", "another object", "no such class", "no such child", "nothing"])
def test_objects_that_are_no_message(siege: Siege, damage: str) -> None:
    tree, objects = damaged(siege, damage)
    hostile = siege.hand_out(HostileLink(request(RecordDict()), tree, objects, APP))
    assert siege.refusal(hostile.content()) is Code.BAD_MODEL
    honest = siege.hand_out(telling(request(siege.task(), "query"), APP))
    assert unpack_facts(honest.content()).site == SITE


@pytest.mark.parametrize("endpoint", ["pull-messages", "activate-node", "send-node-heartbeat"])
@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_answers_that_no_server_gives(siege: Siege, endpoint: str, lie: Lie) -> None:
    if endpoint != "pull-messages" and lie.status != 307:
        pytest.skip("one of each will do")
    before = siege.rss_mb()
    said: list[str] = []

    def tamper(path: str, body: bytes) -> Lie | None:
        if endpoint == "activate-node" and path.endswith("pull-messages") and not said:
            return Lie(500)  # so that it connects again
        if path.endswith(endpoint) and not said:
            said.append(path)
            return lie
        return None

    siege.proxy.tamper = tamper
    wait_for("the lie to be told", lambda: said)
    time.sleep(0.5)
    siege.wait_until_online()
    assert siege.rss_mb() - before < 150


def test_the_site_still_trains_for_an_honest_run(siege: Siege, grid: DeployedGrid) -> None:
    reply = ask(grid, siege.node, siege.task())
    siege.check_line(reply)
    assert unpack_update(reply, get_weights(build_network(siege.study))).num_cases == 2
    assert siege.state.stat().st_mode & 0o777 == 0o700
    being_written = ".status.json."  # the site's status is written anew all the time
    assert {path.name for path in siege.state.iterdir() if not path.name.startswith(being_written)} <= {
        *("answers", "cache", "device_hours.json", "device_hours.lock", "last_update", "ledger.head", "ledger.jsonl"),
        *("approved-kit.json", "ledger.late", "ledger.receipts", "node.lock", "session", "site.log", "status.json"),
        *("account.key", "trained_on"),
    }


def test_an_unregistered_key(siege: Siege, tmp_path: Path) -> None:
    make_key(tmp_path / "other.key", SITE)
    with pytest.raises(DisconnectedError, match="does not know this site's key"), joined(siege, tmp_path / "other.key"):
        pytest.fail("it was let in")


def test_a_second_client_with_the_same_key_does_not_disturb_the_first(siege: Siege, grid: DeployedGrid) -> None:
    key = siege.made.site(SITE) / "site.key"
    with pytest.raises(DisconnectedError, match="another process is online with it"), joined(siege, key):
        pytest.fail("it was let in")
    reply = ask(grid, siege.node, siege.task(), "query")
    siege.check_line(reply)
    assert unpack_facts(reply).site == SITE


def test_a_signed_request_is_good_for_minutes_and_for_its_own_site(
    siege: Siege, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = next(call for call in reversed(siege.proxy.calls) if call.path.endswith("pull-messages"))
    context = ssl.create_default_context(cafile=str(siege.made.study.ca_certificate))

    def send(body: bytes) -> int:
        headers = {**recorded.headers, "content-length": str(len(body))}
        port = load_server(siege.made.study.server_file).port
        with httpx.Client(verify=context) as client:
            return client.post(f"https://localhost:{port}{recorded.path}", content=body, headers=headers).status_code

    assert send(recorded.body) == 200, "the recorded request is whole"
    other = PullMessagesRequest(node=Node(node_id=siege.nodes[STRANGER])).SerializeToString()
    assert send(other) == httpx.codes.UNAUTHORIZED
    signed_at = node_auth_http_interceptor.now() - timedelta(minutes=6)
    monkeypatch.setattr(node_auth_http_interceptor, "now", lambda: signed_at)
    key = siege.made.site(STRANGER) / "site.key"
    with pytest.raises(DisconnectedError, match="does not accept this site's signature"), joined(siege, key):
        pytest.fail("it was let in")


def test_a_site_that_gives_anothers_name_is_left_out(siege: Siege, grid: DeployedGrid) -> None:
    stop = threading.Event()

    def impersonate() -> None:
        with joined(siege, siege.made.site(STRANGER) / "site.key") as fleet:
            while not stop.wait(0.2):
                message = fleet.receive()
                if message is not None:
                    facts = pack_facts(NodeFacts(SITE, __version__, 1000))
                    fleet.send(Message(facts, reply_to=message))

    class Nobody:
        def on_wait(self, *_: object) -> None: ...

    thread = threading.Thread(target=impersonate)
    thread.start()
    try:
        wait_for("both online", lambda: {node.site for node in grid.presence().values()} == {SITE, STRANGER})
        roster = Roster()
        meet_sites(grid, RoundTask(siege.study, 1), roster, Nobody())  # type: ignore[arg-type]
    finally:
        stop.set()
        thread.join()
    assert roster.names == {siege.node: SITE}
    assert [(failure.site, failure.code) for failure in roster.absent] == [(STRANGER, "WRONG_NAME")]
    siege.lines += 1


@pytest.mark.parametrize("path", OTHER_PATHS)
def test_the_public_port_answers_sites_alone(siege: Siege, path: str) -> None:
    server = load_server(siege.made.study.server_file)
    context = ssl.create_default_context(cafile=str(siege.made.study.ca_certificate))
    secret = {"x-msfl-control": siege.link.secret.read_text().strip()}
    for port, headers in (
        (server.port, secret),
        (server.control_port, {}),
        (server.control_port, {"x-msfl-control": "x"}),
    ):
        for method in ("POST", "GET"):
            connection = http.client.HTTPSConnection("localhost", port, context=context)
            connection.request(method, path, headers={**PROTOBUF, **headers})
            answer = connection.getresponse()
            assert answer.status == 404, (port, method)
            connection.close()


def test_the_control_api_needs_the_secret_and_the_control_port(siege: Siege) -> None:
    server = load_server(siege.made.study.server_file)
    authority = siege.made.study.ca_certificate.read_bytes()
    for port, keys, good in (
        (server.port, [siege.link.key()], False),
        (server.control_port, [], False),
        (server.control_port, [siege.link.key()], True),
    ):
        with ControlHttpClient.from_server_address(f"localhost:{port}", False, authority, keys) as client:
            if good:
                assert len(client.ListNodes(ListNodesRequest()).nodes_info) == 2
            else:
                with pytest.raises(httpx.HTTPStatusError, match="404"):
                    client.ListNodes(ListNodesRequest())


@pytest.mark.parametrize("shown", ["another authority", "expired", "plain HTTP"])
def test_the_site_speaks_to_no_other_server(siege: Siege, tmp_path: Path, shown: str) -> None:
    folder = siege.made.study
    num_calls = len(siege.proxy.calls)
    show(siege, shown, tmp_path)
    try:
        if shown == "plain HTTP":
            siege.wait_for_reason("cannot be reached")
        else:
            siege.wait_for_reason("does not fit the joining kit")
        time.sleep(2)
        late = siege.proxy.calls[num_calls:]
        assert len(late) <= 2, "what was on its way when the connection ended"
    finally:
        siege.proxy.show(folder.server_certificate, folder.server_key)
    siege.wait_until_online()


def test_a_site_whose_key_is_revoked_while_it_is_connected_is_not_served(siege: Siege) -> None:
    folder = siege.made.study
    public_key = folder.public_key_file(SITE).read_bytes()
    remove_site(folder, SITE)
    started = time.monotonic()
    assert SITE not in authorise(siege.link, folder)
    siege.wait_for_reason("the key was removed there", 15)
    assert time.monotonic() - started < 15
    folder.public_key_file(SITE).write_bytes(public_key)  # Flower takes no key back, and says so
    with connect(siege.link) as control:
        keys = {name: folder.public_key_file(name) for name in (SITE, STRANGER)}
        assert control.authorise(keys) == ([], [], [SITE])
    assert SITE not in authorise(siege.link, folder)
