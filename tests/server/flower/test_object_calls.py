"""The short way of objects: whoever may not go the long one may not go this one either."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import numpy as np
import pytest
import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec
from fastapi import FastAPI
from flwr.app import Array
from flwr.common.constant import SubStatus
from flwr.proto.message_pb2 import ObjectTree, PullObjectRequest, PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.server.superlink.linkstate.linkstate_factory import LinkStateFactory
from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME, TaskType
from flwr.supercore.object_store.object_store_factory import ObjectStoreFactory
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.superlink.config_loader import get_federation_manager
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from msfl_server.flower.object_calls import MOST_BYTES, ObjectCalls


@dataclass
class Link:
    """A SuperLink's state with one node and one run, served on a port."""

    address: str
    flower: FastAPI
    node: Node
    run_id: int
    session: str
    name: str
    content: bytes

    def url(self, call: str) -> str:
        return f"http://{self.address}/v1/fleet/{call}"

    def client(self, key: ec.EllipticCurvePrivateKey) -> FleetHttpClient:
        signed = NodeAuthHttpInterceptor(key, key.public_key())
        return FleetHttpClient.from_server_address(self.address, True, None, [signed])

    def push(self, key: ec.EllipticCurvePrivateKey, content: bytes) -> bool:
        request = PushObjectRequest(
            node=self.node, run_id=self.run_id, object_id=self.name, object_content=content, session_id=self.session
        )
        with self.client(key) as client:
            return bool(client.PushObject(request).stored)

    def pull(self, key: ec.EllipticCurvePrivateKey) -> bytes:
        request = PullObjectRequest(node=self.node, run_id=self.run_id, object_id=self.name)
        with self.client(key) as client:
            return bytes(client.PullObject(request).object_content)


@pytest.fixture(scope="module")
def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP384R1())


@pytest.fixture
def link(key: ec.EllipticCurvePrivateKey) -> Iterator[Link]:
    factory = LinkStateFactory(FLWR_IN_MEMORY_DB_NAME, get_federation_manager(), ObjectStoreFactory())
    state, flower = factory.state(), FastAPI()
    flower.state.linkstate_factory = factory
    node_id = state.create_node("", "", public_key_to_bytes(key.public_key()), 30)
    run_id = state.create_run("", "", "", {}, "federation", None, None, TaskType.SERVER_APP)
    (task,) = state.get_tasks(run_ids=[run_id])
    assert state.claim_task(task.task_id)
    assert state.activate_task(task.task_id)
    (chunk,) = Array(np.arange(1000, dtype=np.float32)).children.values()
    session = state.start_session(run_id)
    assert state.preregister_object_tree(ObjectTree(object_id=chunk.object_id), session) == [chunk.object_id]
    server = uvicorn.Server(uvicorn.Config(ObjectCalls(flower), lifespan="off", ws="none", log_level="critical"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        yield Link(address, flower, Node(node_id=node_id), run_id, session, chunk.object_id, chunk.deflate())
        server.should_exit = True
        thread.join()


def refused(error: pytest.ExceptionInfo[httpx.HTTPStatusError]) -> tuple[int, str]:
    return error.value.response.status_code, error.value.response.text


def test_an_object_goes_in_and_comes_out(link: Link, key: ec.EllipticCurvePrivateKey) -> None:
    assert link.pull(key) == b""
    assert link.push(key, link.content)
    assert link.pull(key) == link.content


def test_who_is_not_a_node_is_refused(link: Link, key: ec.EllipticCurvePrivateKey) -> None:
    stranger = ec.generate_private_key(ec.SECP384R1())
    for call in (lambda: link.push(stranger, link.content), lambda: link.pull(stranger)):
        with pytest.raises(httpx.HTTPStatusError) as error:
            call()
        assert refused(error) == (401, '{"detail":"Invalid SuperNode authentication"}')
    assert link.pull(key) == b"", "nothing was kept"


@pytest.mark.parametrize("call", ["push-object", "pull-object"])
def test_a_call_without_signature_is_refused(link: Link, call: str) -> None:
    body = PullObjectRequest(node=link.node, run_id=link.run_id, object_id=link.name).SerializeToString()
    assert httpx.post(link.url(call), content=body).status_code == 401


def test_an_object_of_another_name_is_refused(link: Link, key: ec.EllipticCurvePrivateKey) -> None:
    assert not link.push(key, link.content + b" ")
    assert link.pull(key) == b""


def test_a_run_that_is_over_is_told(link: Link, key: ec.EllipticCurvePrivateKey) -> None:
    state = link.flower.state.linkstate_factory.state()
    (task,) = state.get_tasks(run_ids=[link.run_id])
    assert state.finish_task(task.task_id, sub_status=SubStatus.COMPLETED, details="")
    with pytest.raises(httpx.HTTPStatusError) as error:
        link.pull(key)
    assert refused(error)[0] == 403


def test_a_body_larger_than_any_object_is_refused_before_its_end(link: Link) -> None:
    size = 100 * MOST_BYTES
    with socket.create_connection(link.address.split(":")) as connection:  # type: ignore[arg-type]
        connection.settimeout(10)
        connection.sendall(f"POST /v1/fleet/push-object HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode())
        connection.sendall(bytes(MOST_BYTES + 1))
        assert connection.recv(100).startswith(b"HTTP/1.1 413")


def test_other_calls_are_left_to_flower(link: Link) -> None:
    assert httpx.get(link.url("push-object")).status_code == 404, "here, an application without routes"
    assert httpx.post(link.url("pull-messages")).status_code == 404
