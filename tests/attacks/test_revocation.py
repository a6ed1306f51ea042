"""A site whose key was taken away: refused within a second, whatever it is in the middle of.

The SuperLink, the coordinator's watch over it and the site's connection are the real ones.
"""

from __future__ import annotations

import base64
import shutil
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import httpx
import pytest
from flwr.app import Message
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.proto.fleet_pb2 import ActivateNodeRequest
from flwr.proto.message_pb2 import PushObjectRequest, PushObjectResponse
from flwr.proto.node_pb2 import Node
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.date import now
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE

from msfl_client.connection.fleet_client import DisconnectedError, Fleet, join
from msfl_client.connection.message_limits import Bounds
from msfl_client.site.keys import load_key
from msfl_common.config.study import StudyConfig
from msfl_common.messages.records import RoundTask, pack_task
from msfl_common.models.network import build_network, get_weights
from msfl_server.flower import coordinator
from msfl_server.flower.coordinator import TICK_S, Coordinator, link_address
from msfl_server.flower.server_process import open_run
from msfl_server.study.server_config import load_server
from msfl_server.study.sites import add_site, remove_site
from tests.integration.deployment import Deployment, deployment
from tests.kits import trust_at

SITES = ("site-a", "site-b", "site-c", "site-d")
WITHIN_S = 1.0


@pytest.fixture(scope="module")
def made(tiny: StudyConfig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A study whose coordinator watches over its SuperLink, as `msfl-server start` does between two ticks."""
    base = tmp_path_factory.mktemp("revocation")
    with deployment(base, tiny.model_copy(update={"name": "revocation"}), dict.fromkeys(SITES, base)) as made:
        watched = Coordinator(made.study, lambda _: None)
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(TICK_S):
                watched._authorise()

        watched._start_link()
        watching = threading.Thread(target=watch)
        watching.start()
        yield made
        ended.set()
        watching.join()
        watched._link.stop()


def joined(made: Deployment, site: str) -> AbstractContextManager[Fleet]:
    key = load_key(made.site(site) / "site.key")
    address = f"localhost:{load_server(made.study.server_file).port}"
    return join(address, trust_at(made.site(site)), key, None, Bounds(10**7, 1000))


def seconds_until_refused(call: Callable[[], object]) -> float:
    """How long calls still go through."""
    started = time.monotonic()
    while time.monotonic() < started + 10:
        try:
            call()
        except DisconnectedError as error:
            if "the key was removed there" not in str(error):
                raise
            return time.monotonic() - started
        time.sleep(0.01)
    raise AssertionError("it goes on for ten seconds")


def test_calls_on_an_open_connection(made: Deployment) -> None:
    with joined(made, "site-a") as fleet:
        assert fleet.receive() is None
        remove_site(made.study, "site-a")
        took_s = seconds_until_refused(fleet.receive)
    print(f"a removed site is refused after {took_s:.2f} s")
    assert took_s < WITHIN_S


def test_an_upload_that_is_under_way(made: Deployment, tiny: StudyConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first piece is taken, no other is, and the coordinator never gets the update."""
    weights = get_weights(build_network(tiny))
    link = link_address(made.study, load_server(made.study.server_file))
    with open_run(link) as (grid, _), joined(made, "site-b") as fleet:
        (asked,) = grid.push_messages([Message(pack_task(RoundTask(tiny, 1), weights), fleet.node_id, "train", ttl=60)])
        message = fleet.receive()
        assert message is not None
        push, one_at_a_time, pushed = fleet._client.PushObject, threading.Lock(), []

        def revoked_after_the_first(request: PushObjectRequest) -> PushObjectResponse:
            with one_at_a_time:
                answer: PushObjectResponse = push(request)
                pushed.append(request.object_id)
                if len(pushed) == 1:
                    remove_site(made.study, "site-b")
                    time.sleep(WITHIN_S)
            return answer

        monkeypatch.setattr(fleet._client, "PushObject", revoked_after_the_first)
        with pytest.raises(DisconnectedError, match="the key was removed there"):
            fleet.send(Message(message.content, reply_to=message))
        assert len(pushed) == 1
        assert not any(reply.has_content() for reply in grid.pull_messages([asked]))


def test_a_piece_whose_bytes_come_slowly(made: Deployment) -> None:
    """It was signed while the key was good; the rest of it comes when the key is not."""
    with joined(made, "site-c") as fleet:
        piece = PushObjectRequest(node=Node(node_id=fleet.node_id), run_id=1, object_id="x", object_content=b"y" * 99)
        body = piece.SerializeToString()

        def slowly() -> Iterator[bytes]:
            yield body[:20]
            remove_site(made.study, "site-c")
            time.sleep(WITHIN_S)
            yield body[20:]

        told = signature(made.site("site-c")) | {"content-length": str(len(body))}
        assert call(made, "site-c", "push-object", slowly(), told) == 401


def test_coming_online_again_and_a_call_signed_before(made: Deployment) -> None:
    key = load_key(made.site("site-d") / "site.key")
    before = signature(made.site("site-d"))
    with joined(made, "site-d") as fleet:
        remove_site(made.study, "site-d")
        seconds_until_refused(fleet.receive)
    with pytest.raises(DisconnectedError, match="does not know this site's key"), joined(made, "site-d"):
        pass
    again = ActivateNodeRequest(public_key=public_key_to_bytes(key.public_key()), heartbeat_interval=10)
    assert call(made, "site-d", "activate-node", again.SerializeToString(), before) >= 400


def test_an_older_sites_folder_laid_over_the_study(
    tiny: StudyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Restored from a backup of before, it brought the site back, and nothing said so."""
    said: list[str] = []
    authorised: list[str] = []

    class Link:
        def authorise(self, keys: dict[str, Path]) -> tuple[list[str], list[str], list[str]]:
            authorised[:] = list(keys)
            return list(keys), [], []

    monkeypatch.setattr(coordinator, "connect", lambda _: nullcontext(Link()))
    with deployment(tmp_path / "study", tiny, dict.fromkeys(SITES[:2], tmp_path)) as made:
        shutil.copytree(made.study.sites, tmp_path / "backup")
        remove_site(made.study, "site-b")
        shutil.copytree(tmp_path / "backup", made.study.sites, dirs_exist_ok=True)
        Coordinator(made.study, said.append)._authorise()
        assert authorised == ["site-a"]
        assert "site site-b: its key was taken away before and stays so" in said[-1]
        remove_site(made.study, "site-b")
        add_site(made.study, "site-b", made.site("site-b") / "site.key.pub")  # a person's word
        Coordinator(made.study, said.append)._authorise()
        assert authorised == ["site-a", "site-b"]


def signature(folder: Path) -> dict[str, str]:
    """What a site signs a call with."""
    key, timestamp = load_key(folder / "site.key"), now().isoformat()
    signed = public_key_to_bytes(key.public_key()), sign_message(key, timestamp.encode())
    names = (FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER)
    return {TIMESTAMP_HEADER: timestamp} | {
        name: base64.b64encode(part).decode() for name, part in zip(names, signed, strict=True)
    }


def call(
    made: Deployment, site: str, name: str, body: bytes | Iterator[bytes], signed: dict[str, str] | None = None
) -> int:
    """Status of a call that is made by hand."""
    headers = signed or signature(made.site(site))
    url = f"https://localhost:{load_server(made.study.server_file).port}/v1/fleet/{name}"
    headers = {**headers, "content-type": PROTOBUF_MEDIA_TYPE}
    with httpx.Client(verify=ssl.create_default_context(cafile=made.study.ca_certificate), timeout=30) as client:
        return client.post(url, content=body, headers=headers).status_code
