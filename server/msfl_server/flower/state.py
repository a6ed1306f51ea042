"""Flower's register of nodes, runs and messages, with what it lacks towards sites that mean harm.

What a message is made of is in the store of objects in flight; the database knows who has sent what to whom.

Uses Flower's private parts; flwr is pinned exactly for it.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from fastapi import HTTPException
from flwr.app import Message
from flwr.proto.fleet_pb2 import PushMessagesRequest, PushMessagesResponse
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, ConfirmMessageReceivedResponse, ObjectTree
from flwr.server.superlink.linkstate import LinkState as FlowersLinkState
from flwr.server.superlink.linkstate.sql_linkstate import SqlLinkState
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.object_store import ObjectStore
from flwr.superlink.servicer.fleet import fleet_handlers

from msfl_server.flower.gate import Registered
from msfl_server.flower.object_store import KEPT_S, ParcelStore, TooMuchError, asked_for, calling
from msfl_server.rounds.reply_bounds import ReplyBounds

log = logging.getLogger(__name__)
_MOST_HEAD_BYTES = 16 * 2**10  # a message without what it holds
_TOO_LARGE = 413


@dataclass(frozen=True)
class _Asked:
    bounds: ReplyBounds
    until: float


class LinkState(SqlLinkState):
    """Flower's state in SQLite, without its objects."""

    def __init__(self, registered: Registered, parcels: ParcelStore, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._registered = registered
        self._parcels = parcels
        self._asked: dict[str, _Asked] = {}

    def create_node(self, owner_aid: str, owner_name: str, public_key: bytes, *arguments: Any, **more: Any) -> int:
        """As Flower's; the gate knows the key."""
        node_id = super().create_node(owner_aid, owner_name, public_key, *arguments, **more)
        if node_id:  # Flower's word for a node that could not be made
            self._registered.add(public_key, node_id)
        return node_id

    def delete_node(self, owner_aid: str, node_id: int) -> None:
        """As Flower's; the gate forgets the key, before anything else is done."""
        self._registered.remove(node_id)
        super().delete_node(owner_aid, node_id)

    def start_session(self, _: int) -> str:
        """A name for what is sent next, which nobody guesses."""
        return uuid4().hex

    def delete_sessions_in_run(self, run_id: int) -> None:
        """They end with their messages."""

    def store_message_and_object_tree(
        self, message: Message, object_tree: ObjectTree, session_id: str
    ) -> tuple[bool, list[str]]:
        """As Flower's; a reply is as it was asked for, and known as refused if it is not.

        Raises:
            HTTPException: it is too large.
        """
        about = message.metadata
        if about.message_id != object_tree.object_id:
            raise ValueError("a message that is not the first of its objects")
        too_much, missing = False, list[str]()
        with self.session():
            if not about.reply_to_message_id:
                if self.store_message_ins(message) is None:
                    return False, []
                until = time.monotonic() + about.ttl + KEPT_S
                self._asked[about.message_id] = _Asked(asked_for.get(), until)
                node = about.dst_node_id
                return True, self._parcels.announce_request(about.run_id, node, object_tree, session_id, until)
            asked, node = self._asked.get(about.reply_to_message_id), about.src_node_id
            if asked is None or self.store_message_res(message) is None:
                return False, []
            try:
                missing = self._parcels.announce_reply(
                    about.run_id, node, object_tree, session_id, asked.until, asked.bounds
                )
            except TooMuchError:
                too_much = True
        if too_much:
            raise HTTPException(_TOO_LARGE)
        return True, missing

    def delete_messages(self, message_ins_ids: set[str]) -> None:
        """As Flower's."""
        super().delete_messages(message_ins_ids)
        for message_id in message_ins_ids:
            self._asked.pop(message_id, None)

    def store_object(self, _: int, session_id: str, object_id: str, object_content: bytes) -> bool:
        """Keep an object of a message that was announced.

        Raises:
            HTTPException: it is more than was asked for.
        """
        try:
            return self._parcels.receive(session_id, calling.get(), object_id, object_content)
        except TooMuchError:
            raise HTTPException(_TOO_LARGE) from None
        except ValueError as error:
            log.warning("an object was not kept: %s", error)
            return False

    def get_object(self, _: int, object_id: str) -> bytes | None:
        """An object of a message to whoever asks."""
        node = calling.get()
        return self._parcels.for_server(object_id) if node is None else self._parcels.for_site(node, object_id)

    def store_traffic(self, run_id: int, *, bytes_sent: int, bytes_recv: int) -> None:
        """Count nothing: nobody reads it, and each object's transfer would wait for the database's one writer."""


def make_strict(parcels: ParcelStore) -> None:
    """A node speaks for itself only: Flower checks who signed a call, not whom what is in it is about."""
    flowers_push, flowers_confirm = fleet_handlers.push_messages, fleet_handlers.confirm_message_received

    def push_messages(request: PushMessagesRequest, state: FlowersLinkState) -> PushMessagesResponse:
        if any(message.metadata.src_node_id != request.node.node_id for message in request.messages_list):
            raise FlowerError(ApiErrorCode.FLEET_RUN_STATUS_NOT_ALLOWED, "a message in another node's name")
        if len(request.messages_list) != 1 or len(request.message_object_trees) != 1:
            raise HTTPException(400)
        if request.messages_list[0].ByteSize() > _MOST_HEAD_BYTES:
            raise HTTPException(_TOO_LARGE)
        times = request.messages_list[0].metadata
        # Flower compares times, which finds nothing wrong with NaN; SQLite then hands out None for it.
        if not (math.isfinite(times.created_at) and math.isfinite(times.ttl)):
            raise HTTPException(400)
        del request.clientapp_runtime_list[:]  # of any size, and nobody reads their sum
        return flowers_push(request=request, state=state)

    def confirm_message_received(
        request: ConfirmMessageReceivedRequest, state: FlowersLinkState, store: ObjectStore
    ) -> ConfirmMessageReceivedResponse:
        if not parcels.is_for(request.message_object_id, request.node.node_id):
            return ConfirmMessageReceivedResponse()
        return flowers_confirm(request=request, state=state, store=store)

    vars(fleet_handlers).update(push_messages=push_messages, confirm_message_received=confirm_message_received)
