"""Flower's grid of a SuperLink, through the gate of our control port; it never waits for one site's upload alone.

Large objects do not pass the port: this process and the SuperLink share the folder where they lie.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import httpx
from flwr.app import Error, Message, Metadata
from flwr.app.message import make_message, remove_content_from_message
from flwr.common.constant import ErrorCode
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, ObjectTree
from flwr.proto.runtime_pb2 import PullAppMessagesRequest, PushAppMessagesRequest
from flwr.supercore.constant import SYSTEM_MESSAGE_TYPE
from flwr.supercore.date import now
from flwr.supercore.inflatable.inflatable_object import (
    InflatableObject,
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
)
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_pull_object_fn_protobuf,
    make_push_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    ObjectUnavailableError,
    inflate_object_from_contents,
)
from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor, RuntimeVersionHttpInterceptor
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext
from flwr.supercore.retry import RetryInvoker, exponential
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.superlink.grid.http_grid import HttpGrid

from msfl_server.flower.control import LinkAddress
from msfl_server.flower.control_port import ASKED_HEADER, REFUSED, SECRET_HEADER
from msfl_server.flower.object_folder import LARGE_BYTES, ObjectFolder
from msfl_server.rounds.exchange import Presence
from msfl_server.rounds.failures import TOO_LARGE, UNREADABLE
from msfl_server.rounds.reply_bounds import REST, ReplyBounds, bounds_of_bytes
from msfl_server.study.ledger_heads import Notary

RETRY_S = 10.0  # a SuperLink that stays away longer is gone; a new process starts with the new one


class _IncompleteError(Exception):
    """The site has not uploaded all of its reply yet."""


class _Parts(dict[str, bytes]):
    """A reply's objects that are here: small ones in memory, large ones read from their files when looked at."""

    def __init__(self, files: ObjectFolder, message_id: str) -> None:
        super().__init__()
        self._files = files
        self._message_id = message_id

    def __missing__(self, object_id: str) -> bytes:
        content = self._files.read(self._message_id, object_id)
        if content is None:
            raise ObjectPullError(object_id, "its file is gone")
        return content


class UnreadableError(Exception):
    """What the site has uploaded is no message."""


@dataclass
class _Arriving:
    """A reply that a site has begun to upload, and the parts of it that are here."""

    reply_to: str
    tree: ObjectTree
    parts: _Parts


class _AskedHeader:
    """Tells the SuperLink with each request how large an answer may be."""

    def __init__(self) -> None:
        self.told: ReplyBounds | None = None
        self._bounds = REST

    def like(self, request: Message) -> None:
        """The bounds of answers to this request."""
        records = request.content.array_records.values() if request.has_content() else ()
        sizes = [len(array.data) for record in records for array in record.values()]
        self._bounds = self.told or bounds_of_bytes(sum(sizes), len(sizes))

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        """See `flwr.supercore.protobuf.client`."""
        context.request.headers[ASKED_HEADER] = f"{self._bounds.num_bytes} {self._bounds.num_objects}"
        return call_next(context)


class DeployedGrid(HttpGrid):
    """The grid of a deployed run."""

    def __init__(self, link: LinkAddress, token: str) -> None:
        super().__init__(link.address, False, link.ca_certificate.read_bytes(), token=token)
        self._link_key = link.key()
        self._asked = _AskedHeader()
        self._retry_invoker = RetryInvoker(
            lambda: exponential(max_delay=2), httpx.TransportError, max_tries=None, max_time=RETRY_S
        )
        self._arriving: dict[str, _Arriving] = {}
        self._files = ObjectFolder.beside(link.database)
        self.notary: Notary | None = None
        self.members: Callable[[], Iterable[str]] | None = None  # the sites that are authorised at this moment
        self.registered_key: Callable[[str], str] | None = None  # the public key that a site was authorised with

    def _connect(self) -> None:
        self._client = RuntimeHttpClient.from_server_address(
            self._addr,
            self._insecure,
            self._cert,
            [
                RuntimeVersionHttpInterceptor(component_name="flwr-serverapp"),
                RuntimeTokenHttpInterceptor(self._token),
                self._link_key,
                self._asked,
            ],
            retry_invoker=self._retry_invoker,
        )

    def presence(self) -> dict[int, Presence]:
        """The nodes that are online."""
        return {node.node_id: Presence(node.name, node.last_activated_at) for node in self.get_nodes()}

    def expect(self, bounds: ReplyBounds | None) -> None:
        """What each site may answer to the requests that follow; None: as much as the request, and little else."""
        self._asked.told = bounds

    def _try_push_messages(self, run_id: int, messages: Iterable[Message]) -> list[str]:
        """As Flower's, but a large object is written to its file, and pushed without content."""
        heads, trees = [], []
        objects: dict[str, InflatableObject] = {}
        for message in messages:
            self._asked.like(message)
            heads.append(message_to_proto(remove_content_from_message(message)))
            trees.append(get_object_tree(message))
            objects |= get_all_nested_objects(message)
        answer = self._runtime_client.PushMessages(
            PushAppMessagesRequest(messages_list=heads, message_object_trees=trees)
        )
        push = make_push_object_fn_protobuf(self._runtime_client.PushObject, self.node, run_id, answer.session_id)

        for object_id in answer.objects_to_push:  # one at a time: all deflated would be there twice
            content = objects.pop(object_id).deflate()
            if len(content) >= LARGE_BYTES:
                self._files.write("", object_id, content)
                content = b""
            push(object_id, content)
        return list(answer.message_ids)

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The replies that are here whole; the others are looked at again at the next call.

        Flower's own waits until each is whole: for minutes when a site died as it uploaded, while the other
        sites, the deadline and the site's second attempt have to wait too.
        """
        wanted = set(message_ids)
        # A reply's head is handed out once; asked for again, the SuperLink would call the reply lost.
        if unseen := wanted - {arriving.reply_to for arriving in self._arriving.values()}:
            answer = self._runtime_client.PullMessages(PullAppMessagesRequest(message_ids=unseen))
            for head, tree in zip(answer.messages_list, answer.message_object_trees, strict=True):
                self._arriving[head.metadata.message_id] = _Arriving(
                    head.metadata.reply_to_message_id, tree, _Parts(self._files, tree.object_id)
                )
        replies = []
        for message_id, arriving in [item for item in self._arriving.items() if item[1].reply_to in wanted]:
            try:
                replies.append(self._take(message_id, arriving))
            except _IncompleteError:
                continue
            except ObjectPullError as error:
                refused = self._was_refused(arriving.tree.object_id)
                code = TOO_LARGE if refused else ErrorCode.MESSAGE_UNAVAILABLE
                replies.append(self._lost(arriving.reply_to, code, str(error)))
            except UnreadableError as error:
                replies.append(self._lost(arriving.reply_to, UNREADABLE, str(error)))
            del self._arriving[message_id]
        return replies

    def _take(self, message_id: str, arriving: _Arriving) -> Message:
        assert self._run is not None
        run_id = self._run.run_id
        pull = make_pull_object_fn_protobuf(self._runtime_client.PullObject, self.node, run_id)

        for node in iterate_object_tree(arriving.tree):
            if node.object_id not in arriving.parts and not self._files.has(arriving.tree.object_id, node.object_id):
                try:
                    arriving.parts[node.object_id] = pull(node.object_id)
                except ObjectUnavailableError:
                    raise _IncompleteError from None
        message = read_message(arriving)
        self._runtime_client.ConfirmMessageReceived(
            ConfirmMessageReceivedRequest(node=self.node, run_id=run_id, message_object_id=message_id)
        )
        message.metadata.__dict__["_message_id"] = message_id  # as Flower's grid does
        return message

    def _was_refused(self, message_id: str) -> bool:
        """Whether the SuperLink cut the site off, as its reply was larger than was asked for."""
        client = self._runtime_client
        headers = {SECRET_HEADER: self._link_key.secret}
        answer = client._client.get(f"{client._base_url}{REFUSED}{message_id}", headers=headers)
        return bool(answer.status_code == httpx.codes.OK)

    def _lost(self, reply_to: str, code: int, reason: str) -> Message:
        """What Flower's grid gives for a reply whose parts are gone, or make no message."""
        assert self._run is not None
        metadata = Metadata(
            run_id=self._run.run_id,
            message_id="",
            src_node_id=self.node.node_id,
            dst_node_id=self.node.node_id,
            message_type=SYSTEM_MESSAGE_TYPE,
            group_id="",
            ttl=0,
            reply_to_message_id=reply_to,
            created_at=now().timestamp(),
        )
        return make_message(metadata=metadata, error=Error(code=code, reason=reason))


def read_message(arriving: _Arriving) -> Message:
    """The message of which all parts are here.

    Raises:
        ObjectPullError: a part is gone.
        UnreadableError: they make no message; what is wrong with them is not known to any one exception.
    """
    try:
        return _inflate(arriving)
    except (ObjectPullError, OSError):
        raise
    except Exception as error:
        raise UnreadableError(type(error).__name__) from None


def _inflate(arriving: _Arriving) -> Message:
    """What was read for one part is let go before the next is read."""
    inflated: dict[str, InflatableObject] = {}
    for node in iterate_object_tree(arriving.tree):  # parts first, then what they are parts of
        inflate_object_from_contents(node.object_id, arriving.parts, keep_object_contents=True, objects=inflated)
        for part in node.children:
            inflated.pop(part.object_id, None)
    message = inflated[arriving.tree.object_id]
    if not isinstance(message, Message):
        raise TypeError
    return message
