"""What the private names of Flower's do, where a signature does not tell it."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import httpx
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import ArrayRecord, Message, Metadata, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto import fleet_pb2, heartbeat_pb2, message_pb2, run_pb2
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.error.catalog import API_ERROR_MAP
from flwr.supercore.inflatable import inflatable_object, inflatable_utils
from flwr.supercore.primitives.asymmetric import bytes_to_public_key, public_key_to_bytes, verify_signature
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink import main
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from msfl_server.flower.gate import CALLS
from msfl_server.flower.superlink_patches import _UNUSED_LAYERS
from tests.private_names.shapes import thing_at


@pytest.fixture
def message(monkeypatch: pytest.MonkeyPatch) -> Message:
    for name, number in (("task_id", 7), ("run_id", 8), ("node_id", 9)):
        monkeypatch.setattr(TaskIdentity, f"_{name}", None)  # put back after the test
        setattr(TaskIdentity, name, number)
    content = RecordDict({"model": ArrayRecord([np.arange(4, dtype=np.float32), np.ones(2, dtype=np.float32)])})
    return Message(content, dst_node_id=3, message_type="train")


# Where Flower looks a name up that MSFL puts another thing under: at each use, in the module that has it.
LOOKED_UP = {
    "flwr.superlink.main": {"_get_middleware": "create_app"},
    "flwr.server.superlink.linkstate.linkstate_factory": {"SqlLinkState": "LinkStateFactory.state"},
    "flwr.supercore.object_store.object_store_factory": {"SqlObjectStore": "ObjectStoreFactory.store"},
    "flwr.superlink.routers.fleet.node_auth": {"authenticate_node": "NodeAuthMiddleware.dispatch"},
    "flwr.superlink.routers.fleet.router": {
        "push_messages": "fleet_push_messages",
        "confirm_message_received": "fleet_confirm_message_received",
    },
    "flwr.superlink.servicer.fleet.fleet_handlers": {"check_abort": "push_object"},
    "flwr.supercore.sql_mixin": {"SQLITE_PRAGMAS": "_set_sqlite_pragmas"},
}


@pytest.mark.parametrize(
    ("name", "user"),
    [(name, f"{module}.{user}") for module, users in LOOKED_UP.items() for name, user in users.items()],
)
def test_what_is_put_in_a_names_place_is_used(name: str, user: str) -> None:
    assert name in thing_at(user).__code__.co_names


def test_the_layers_that_are_taken_out_are_there() -> None:
    assert set(_UNUSED_LAYERS) < {layer.cls.__name__ for layer in vars(main)["_get_middleware"]()}


def test_sqlites_settings_are_pairs() -> None:
    pragmas = dict(thing_at("flwr.supercore.sql_mixin.SQLITE_PRAGMAS"))
    assert {"cache_size", "mmap_size", "synchronous"} <= pragmas.keys()


def test_a_message_is_a_tree_whose_parts_come_first_and_are_named_by_their_digests(message: Message) -> None:
    tree = inflatable_object.get_object_tree(message)
    names = [node.object_id for node in inflatable_object.iterate_object_tree(tree)]
    assert names[-1] == tree.object_id == message.object_id
    contents = {name: one.deflate() for name, one in inflatable_object.get_all_nested_objects(message).items()}
    assert set(names) == set(contents)
    assert all(hashlib.sha256(content).hexdigest() == name for name, content in contents.items())
    assert all(inflatable_object.is_valid_sha256_hash(name) for name in names)
    again = inflatable_utils.inflate_object_from_contents(tree.object_id, contents, keep_object_contents=True)
    assert isinstance(again, Message)
    assert again.object_id == message.object_id
    assert len(contents) == len(set(names)), "they are kept"
    inflated: dict[str, Any] = {}
    for name in names:
        inflatable_utils.inflate_object_from_contents(name, contents, keep_object_contents=True, objects=inflated)
    assert set(inflated) == set(names), "what is inflated is handed on by name"


def test_objects_that_are_not_there_yet_are_asked_for_again() -> None:
    tries = iter([inflatable_utils.ObjectUnavailableError("a"), b"content"])

    def pull(_: str) -> bytes:
        answer = next(tries)
        if isinstance(answer, bytes):
            return answer
        raise answer

    assert inflatable_utils.pull_objects(["a"], pull, initial_backoff=0.001, backoff_cap=0.01) == {"a": b"content"}


def test_an_object_is_hashed_once_where_that_is_asked_for(message: Message, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = list[bytes]()
    real = inflatable_object.get_object_id
    monkeypatch.setattr(inflatable_object, "get_object_id", lambda content: hashed.append(content) or real(content))
    with inflatable_object.no_object_id_recompute():
        assert message.object_id == message.object_id
        first = len(hashed)
        inflatable_object.get_object_tree(message)
        assert len(hashed) == first


def test_a_messages_name_stands_in_its_head_and_goes_over_the_wire(message: Message) -> None:
    message.metadata.__dict__["_message_id"] = "name"
    assert message.metadata.message_id == "name"
    head = message_from_proto(message_to_proto(remove_content_from_message(message)))
    assert (head.metadata.message_id, head.metadata.run_id, head.metadata.src_node_id) == ("name", 8, 9)
    assert isinstance(head.metadata, Metadata)
    assert not head.content


FLEET_CALLS = {
    "ActivateNode": fleet_pb2.ActivateNodeRequest,
    "DeactivateNode": fleet_pb2.DeactivateNodeRequest,
    "SendNodeHeartbeat": heartbeat_pb2.SendNodeHeartbeatRequest,
    "PullMessages": fleet_pb2.PullMessagesRequest,
    "GetRun": run_pb2.GetRunRequest,
    "ConfirmMessageReceived": message_pb2.ConfirmMessageReceivedRequest,
    "PullObject": message_pb2.PullObjectRequest,
    "PushMessages": fleet_pb2.PushMessagesRequest,
    "PushObject": message_pb2.PushObjectRequest,
}


def test_a_sites_calls_are_signed_and_the_very_ones_that_the_gate_knows() -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    public = public_key_to_bytes(key.public_key())
    calls = list[httpx.Request]()

    def answer(request: httpx.Request) -> httpx.Response:
        calls.append(request)
        return httpx.Response(200)

    client = FleetHttpClient("https://nowhere/", interceptors=[NodeAuthHttpInterceptor(key, key.public_key())])
    client._client.close()
    client._client = httpx.Client(transport=httpx.MockTransport(answer))
    for name, request in FLEET_CALLS.items():
        getattr(client, name)(request())
    assert {call.url.path for call in calls} == set(CALLS)
    for call in calls:
        assert (call.method, call.url.host, "content-length" in call.headers) == ("POST", "nowhere", True)
        assert call.headers[FLEET_HTTP_PUBLIC_KEY_HEADER] == base64.b64encode(public).decode()
        signature = base64.b64decode(call.headers[FLEET_HTTP_SIGNATURE_HEADER])
        assert verify_signature(bytes_to_public_key(public), call.headers[TIMESTAMP_HEADER].encode(), signature)


def test_flowers_errors_are_read_from_answers() -> None:
    fault = FlowerError.from_json('{"code": 1, "detail": "why"}')
    assert fault is not None
    assert fault.code == 1
    assert FlowerError.from_json("<html>") is None
    spec = API_ERROR_MAP[ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED]
    assert (int(spec.http_status_code), bool(spec.public_message)) == (412, True)
