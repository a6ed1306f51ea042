"""A SuperLink that says whatever it likes: what Flower's own would not hand on, told to a site through the proxy."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from flwr.app import Message, RecordDict
from flwr.app.message import make_message, remove_content_from_message
from flwr.app.metadata import Metadata
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import PullMessagesResponse, PushMessagesRequest, PushMessagesResponse
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedResponse,
    ObjectTree,
    PullObjectRequest,
    PullObjectResponse,
    PushObjectRequest,
    PushObjectResponse,
)
from flwr.proto.run_pb2 import GetRunResponse, Run
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from tests.integration.recording_proxy import Lie

from msfl_common.messages.ledger import take_head


def request(content: RecordDict | None, kind: str = "train", group: str = "1", **metadata: object) -> Message:
    """A message as a SuperLink could make it; nothing checks it."""
    settings = {
        "run_id": 7,
        "message_id": "",
        "src_node_id": 1,
        "dst_node_id": 2,
        "reply_to_message_id": "",
        "group_id": group,
        "created_at": 4e9,
        "ttl": 3600.0,
        "message_type": kind,
        **metadata,
    }
    return make_message(Metadata(**settings), content)  # type: ignore[arg-type]


def objects_of(message: Message) -> tuple[ObjectTree, dict[str, bytes]]:
    """Tree and objects of a message."""
    with no_object_id_recompute():
        nested = get_all_nested_objects(message)
        return get_object_tree(message), {name: item.deflate() for name, item in nested.items()}


@dataclass
class HostileLink:
    """Hands out one message and keeps the site's answer.

    Attributes:
        head: the message without its content.
        tree: names of its objects.
        objects: what they hold, or claim to.
        app: what the run says it is.
        kind: a kind of message that Flower's codec would not write.
    """

    head: Message
    tree: ObjectTree
    objects: Mapping[str, bytes]
    app: tuple[str, str]
    kind: str | None = None
    handed_out: bool = False
    pushed: dict[str, bytes] = field(default_factory=dict)
    reply: str = ""
    pulled: int = 0
    answered: threading.Event = field(default_factory=threading.Event)
    _left: int = 0

    def __call__(self, path: str, body: bytes) -> Lie | None:
        """See `recording_proxy.Tamper`."""
        endpoint = path.rpartition("/")[2]
        answer = self._answer(endpoint, body)
        return None if answer is None else Lie(200, {"content-type": "application/protobuf"}, answer)

    def _answer(self, endpoint: str, body: bytes) -> bytes | None:
        match endpoint:
            case "pull-messages":
                if self.handed_out:
                    return PullMessagesResponse().SerializeToString()
                self.handed_out = True
                head = message_to_proto(self.head)
                head.metadata.message_type = self.kind or head.metadata.message_type
                return PullMessagesResponse(messages_list=[head], message_object_trees=[self.tree]).SerializeToString()
            case "pull-object":
                self.pulled += 1
                content = self.objects[PullObjectRequest.FromString(body).object_id]
                return PullObjectResponse(
                    object_found=True, object_available=True, object_content=content
                ).SerializeToString()
            case "confirm-message-received":
                return ConfirmMessageReceivedResponse().SerializeToString()
            case "get-run":
                return GetRunResponse(
                    run=Run(run_id=7, fab_id=self.app[0], fab_version=self.app[1])
                ).SerializeToString()
            case "push-messages":
                (tree,) = PushMessagesRequest.FromString(body).message_object_trees
                names = {node.object_id for node in iterate_object_tree(tree)}
                self.reply, self._left = tree.object_id, len(names)
                return PushMessagesResponse(objects_to_push=sorted(names), session_id="s").SerializeToString()
            case "push-object":
                pushed = PushObjectRequest.FromString(body)
                self.pushed[pushed.object_id] = pushed.object_content
                if len(self.pushed) == self._left:
                    self.answered.set()
                return PushObjectResponse(stored=True).SerializeToString()
            case _:
                return None

    def content(self, seconds: float = 60.0) -> RecordDict:
        """What the site answered, less the end of its ledger that comes beside it."""
        assert self.answered.wait(seconds), "no answer"
        message = inflate_object_from_contents(self.reply, dict(self.pushed))
        assert isinstance(message, Message)
        assert take_head(message.content) is not None
        return message.content


def telling(message: Message, app: tuple[str, str]) -> HostileLink:
    """A link that hands out `message`, whole and sound."""
    tree, objects = objects_of(message)
    return HostileLink(remove_content_from_message(message) if message.has_content() else message, tree, objects, app)
