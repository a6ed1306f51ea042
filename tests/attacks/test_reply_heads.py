"""A site whose reply's first lines say what they like, at a real SuperLink: the coordinator asks on undisturbed."""

from __future__ import annotations

import math
from collections.abc import Callable

import httpx
import pytest
from flwr.app import Message
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.error_pb2 import Error
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import Message as Head
from flwr.proto.message_pb2 import PushObjectRequest
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree

from msfl_client.connection.fleet_client import Fleet
from msfl_client.site.keys import load_key
from msfl_server.flower.grid import DeployedGrid
from tests.attacks.floods import Flood
from tests.attacks.test_flood import HOSTILE, Target, answer, arrays, ask, grid, honest, hostile, target

__all__ = ["grid", "honest", "hostile", "target"]

Change = Callable[[Head], object]


def said(field: str, value: object) -> Change:
    return lambda head: setattr(head.metadata, field, value)


LIES: dict[str, Change] = {
    **{f"{field} {value}": said(field, value) for field in ("created_at", "ttl") for value in (math.nan, math.inf)},
    **{f"{field} negative": said(field, -1e300) for field in ("created_at", "ttl")},
    "made in a million years": said("created_at", 1e15),
    "gone at once": said("ttl", 1e-9),
    "another run": said("run_id", 7),
    "another round": said("group_id", "99"),
    "a long round": said("group_id", "[red]" * 2000),
    "another question": said("message_type", "evaluate"),
    "no question": said("message_type", ""),
    "a question with a path": said("message_type", "../../x"),
    "from the server": said("src_node_id", 1),
    "for nobody": said("dst_node_id", 0),
    "for a node": said("dst_node_id", 2**63),
    "another name": said("message_id", "f" * 64),
    "no name": said("message_id", ""),
    "about nothing": said("reply_to_message_id", ""),
    "an error of the SuperLink's": lambda head: head.error.CopyFrom(Error(code=413, reason="\x1b[31m" * 99)),
    "an error far below zero": lambda head: head.error.CopyFrom(Error(code=-(2**63))),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_reply_whose_head_lies(grid: DeployedGrid, honest: Fleet, hostile: Fleet, lie: str) -> None:
    """A time that is no number was kept, and ended the coordinator's run whenever it asked for that reply."""
    theirs, (asked, message) = ask(grid, honest), ask(grid, hostile)
    reply = Message(arrays(50), reply_to=message)
    reply.metadata.__dict__["_message_id"] = reply.object_id
    head = message_to_proto(remove_content_from_message(reply))
    LIES[lie](head)
    try:
        told = hostile._client.PushMessages(
            PushMessagesRequest(
                node=hostile._node,
                messages_list=[head],
                message_object_trees=[get_object_tree(reply)],
                clientapp_runtime_list=[math.nan],
            )
        )
    except httpx.HTTPStatusError:
        assert grid.pull_messages([asked]) == []
    else:
        for name, item in get_all_nested_objects(reply).items():
            if name in told.objects_to_push:
                push = PushObjectRequest(
                    run_id=message.metadata.run_id,
                    object_id=name,
                    object_content=item.deflate(),
                    session_id=told.session_id,
                )
                push.node.CopyFrom(hostile._node)
                assert hostile._client.PushObject(push).stored
        assert [one.has_content() for one in grid.pull_messages([asked])] in ([], [True])
    answer(grid, honest, *theirs)


SIGNED = "/v1/fleet/pull-messages"
CLOTHES: dict[str, tuple[Callable[[bytes], bytes], int]] = {
    "a whole address": (lambda head: head.replace(b"POST /", b"POST https://localhost/"), 404),
    "a question mark": (lambda head: head.replace(b" HTTP", b"?x=/docs HTTP"), 404),
    "a fragment": (lambda head: head.replace(b" HTTP", b"#x HTTP"), 404),
    "an encoded path": (lambda head: head.replace(b"/fleet/", b"/%66leet/"), 404),
    "a way round": (lambda head: head.replace(b"/v1/fleet/", b"/v1/control/../fleet/"), 404),
    "gRPC's path": (lambda head: head.replace(b"/v1/fleet/pull-messages", b"/flwr.proto.Fleet/PullMessages"), 404),
    "another protocol": (lambda head: head[:-2] + b"connection: Upgrade\r\nupgrade: h2c\r\n\r\n", 400),
    "a web socket": (lambda head: head[:-2] + b"connection: upgrade\r\nupgrade: websocket\r\n\r\n", 400),
    "two lengths": (lambda head: head[:-2] + b"content-length: 5\r\n\r\n", 400),
    "no end": (lambda head: head[:-2] + b"transfer-encoding: identity\r\n\r\n", 400),
    "a folded line": (lambda head: head[:-2] + b"x: a\r\n b\r\n\r\n", 400),
    "a NUL": (lambda head: head[:-2] + b"x: a\0b\r\n\r\n", 400),
    "half line ends": (lambda head: head.replace(b"\r\n", b"\n"), 400),
    "a second key": (lambda head: head[:-2] + b"flwr-public-key: AAAA\r\n\r\n", 401),
    "a second time": (lambda head: head[:-2] + b"flwr-timestamp: 2020-01-01T00:00:00+00:00\r\n\r\n", 401),
    "three in one breath": (lambda head: 3 * head, 400),
    "another behind it": (lambda head: head + b"GET /docs HTTP/1.1\r\nhost: x\r\n\r\n", 404),
}


@pytest.mark.parametrize("clothes", CLOTHES)
def test_a_signed_call_in_other_clothes_is_refused(target: Target, clothes: str) -> None:
    change, status = CLOTHES[clothes]
    head = Flood(target.port, 0.0, load_key(target.key(HOSTILE))).head(SIGNED, 0)
    answered = target.say(change(head))
    assert f"HTTP/1.1 {status} ".encode() in answered
    assert b"HTTP/1.1 2" not in answered
