"""The site's side of Flower's fleet protocol: what a SuperNode says to a SuperLink, and nothing more.

Flower's own SuperNode also fetches the coordinator's app bundle and starts processes that unpack and import it.
Here there is no such code: this module has no call that could fetch a bundle. All connections go out.

Uses Flower's private fleet client and object codec; flwr is pinned exactly for it.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import httpx
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from flwr.app import Message
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.node_pb2 import Node
from flwr.proto.run_pb2 import GetRunRequest
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_confirm_message_received_fn_protobuf,
    make_pull_object_fn_protobuf,
    make_push_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    ObjectPushError,
    inflate_object_from_contents,
    pull_objects,
    push_objects,
)
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supercore.protobuf.client import ProtobufClientInterceptor
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from msfl_client.connection.message_limits import Bounds, BoundsError, guard

PULL_AGAIN_S = (0.1, 2.0)  # pause before an object is asked for again that the coordinator is still writing: growing
HEARTBEAT_S = 10  # Flower's shortest; a site that says nothing for two of them counts as offline
_LOOK = "`msfl-client check` says at which step"


class DisconnectedError(Exception):
    """The coordinator cannot be reached, or does not know this site; worth trying again."""


class RunEndedError(Exception):
    """The coordinator's run that a message belongs to is over; the message is moot."""


class UnusableError(Exception):
    """A message that cannot be one of the study; `head` is the message without its content, to be answered."""

    def __init__(self, head: Message, why: str) -> None:
        super().__init__(why)
        self.head = head


@dataclass
class Fleet:
    """An open connection. Made by `join`.

    Attributes:
        node_id: this site's number at the coordinator, the same as long as its key is.
    """

    node_id: int
    _client: FleetHttpClient
    _bounds: Bounds
    _held: dict[str, bytes] = field(default_factory=dict)  # objects of the last message: weights come twice a round

    def receive(self) -> Message | None:
        """The next message that waits for this site, or None.

        Raises:
            DisconnectedError, RunEndedError.
            UnusableError: it is larger than any request of the study, or damaged. It is not fetched whole.
        """
        with _explained():
            answer = self._client.PullMessages(PullMessagesRequest(node=self._node))
            if not answer.messages_list:
                return None
            head, tree = message_from_proto(answer.messages_list[0]), answer.message_object_trees[0]
            head.metadata.__dict__["_message_id"] = tree.object_id  # as Flower's SuperNode does
            run_id = head.metadata.run_id
            confirm = make_confirm_message_received_fn_protobuf(self._client.ConfirmMessageReceived, self._node, run_id)
            try:
                self._held = self._fetch(tree, run_id)
            except BoundsError as error:
                confirm(tree.object_id)
                raise UnusableError(head, str(error)) from None
            confirm(tree.object_id)
        try:
            message = inflate_object_from_contents(tree.object_id, dict(self._held), keep_object_contents=True)
            assert isinstance(message, Message)
        except Exception as error:  # whatever Flower's codec makes of damaged objects
            raise UnusableError(head, f"objects that are no message: {error!r:.200}") from None
        message.metadata.__dict__["_message_id"] = tree.object_id
        return message

    def _fetch(self, tree: ObjectTree, run_id: int) -> dict[str, bytes]:
        """The objects of a message by their id; what the last message had too is not fetched again."""
        needed = [node.object_id for node in iterate_object_tree(tree)]
        if len(needed) > self._bounds.num_objects:
            raise BoundsError(f"a request of {len(needed)} objects, at most {self._bounds.num_objects} expected")
        held = {name: self._held[name] for name in needed if name in self._held}
        pull = make_pull_object_fn_protobuf(self._client.PullObject, self._node, run_id)
        counted = self._bounds.counted(pull, sum(map(len, held.values())))
        first_s, longest_s = PULL_AGAIN_S
        missing = [name for name in dict.fromkeys(needed) if name not in held]
        return held | pull_objects(missing, counted, initial_backoff=first_s, backoff_cap=longest_s)

    def send(self, reply: Message) -> None:
        """Send a reply, whole.

        Raises:
            DisconnectedError, RunEndedError.
        """
        with _explained(), no_object_id_recompute():  # each object is hashed once
            reply.metadata.__dict__["_message_id"] = reply.object_id
            head = message_to_proto(remove_content_from_message(reply))
            answer = self._client.PushMessages(
                PushMessagesRequest(
                    node=self._node,
                    messages_list=[head],
                    message_object_trees=[get_object_tree(reply)],
                    clientapp_runtime_list=[0.0],
                )
            )
            push = make_push_object_fn_protobuf(
                self._client.PushObject, self._node, reply.metadata.run_id, answer.session_id
            )
            push_objects(get_all_nested_objects(reply), push, object_ids_to_push=set(answer.objects_to_push))

    def app_of(self, run_id: int) -> str:
        """The app, with its version, that a run says it is.

        Raises:
            DisconnectedError, RunEndedError.
        """
        with _explained():
            run = self._client.GetRun(GetRunRequest(node=self._node, run_id=run_id)).run
        return f"{run.fab_id} {run.fab_version}"

    @property
    def _node(self) -> Node:
        return Node(node_id=self.node_id)

    def _heartbeat(self) -> None:
        self._client.SendNodeHeartbeat(SendNodeHeartbeatRequest(node=self._node, heartbeat_interval=HEARTBEAT_S))


@contextmanager
def join(
    address: str, trust: ssl.SSLContext, key: EllipticCurvePrivateKey, stale: int | None, bounds: Bounds
) -> Iterator[Fleet]:
    """Come online as the site that `key` belongs to, and go offline at the end.

    Args:
        address: host:port of the coordinator.
        trust: which server is spoken to; see `msfl_client.connection.server_trust`.
        key: the site's private key; it signs every call.
        stale: node id of an earlier connection of this very site that may not have ended cleanly.
        bounds: the largest message that is taken.

    Raises:
        DisconnectedError: no connection, another certificate, an unknown key, or the key is online elsewhere.
    """
    public = key.public_key()
    interceptors: list[ProtobufClientInterceptor] = [
        RuntimeVersionHttpInterceptor(component_name="SuperNode"),
        NodeAuthHttpInterceptor(key, public),
    ]
    with FleetHttpClient(f"https://{address}", interceptors=interceptors, verify=trust) as client:
        guard(client, trust)
        with _explained():
            if stale is not None:
                _leave(client, stale)
            node_id = client.ActivateNode(
                ActivateNodeRequest(public_key=public_key_to_bytes(public), heartbeat_interval=HEARTBEAT_S)
            ).node_id
        fleet = Fleet(node_id, client, bounds)
        stop = threading.Event()
        beat = threading.Thread(target=_beat, args=(fleet, stop), daemon=True)
        beat.start()
        try:
            yield fleet
        finally:
            stop.set()
            _leave(client, node_id)


def _beat(fleet: Fleet, stop: threading.Event) -> None:
    """Say every few seconds that the site is there; a missed beat is no event, the next may come through."""
    while not stop.wait(0.7 * HEARTBEAT_S):
        with suppress(Exception):  # the thread must outlive any answer, and the client's end
            fleet._heartbeat()


def _leave(client: FleetHttpClient, node_id: int) -> None:
    with suppress(Exception):  # nothing hangs on the answer
        client.DeactivateNode(DeactivateNodeRequest(node_id=node_id))


@contextmanager
def _explained() -> Iterator[None]:
    """Turn what the HTTP client raises into one line with the fix."""
    try:
        yield
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        flower = FlowerError.from_json(error.response.text)
        if status == httpx.codes.FORBIDDEN:
            raise RunEndedError from None
        if status == httpx.codes.UNAUTHORIZED:
            raise DisconnectedError(
                "the coordinator does not accept this site's signature: the key was removed there, "
                "or this machine's clock is minutes off"
            ) from None
        if flower is not None and flower.code == ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED:
            raise DisconnectedError(
                "the coordinator does not know this site's key, or another process is online with it; "
                "ask for `msfl-server add-site`, and run one client for each key"
            ) from None
        raise DisconnectedError(f"the coordinator's server answered HTTP {status}; {_LOOK}") from None
    except httpx.TransportError as error:
        if "certificate" in str(error).lower():
            raise DisconnectedError(
                "the server's certificate does not fit the joining kit: expired, given up, of another host or authority"
                f"; {_LOOK}"
            ) from None
        why = "no answer in time" if isinstance(error, httpx.TimeoutException) else "no connection, or it broke"
        raise DisconnectedError(f"the coordinator cannot be reached: {why}; {_LOOK}") from None
    except (ObjectPullError, ObjectPushError):  # the coordinator dropped the message, and asks again if it wants it
        raise RunEndedError from None
    except BoundsError as error:
        raise DisconnectedError(f"the coordinator sent {error}") from None
    except (ValueError, IndexError):  # what Flower's codec raises
        raise DisconnectedError(f"what answers is no study's server, perhaps a proxy; {_LOOK}") from None
