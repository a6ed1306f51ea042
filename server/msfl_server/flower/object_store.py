"""Where the SuperLink keeps what is in flight: each message's objects by themselves, in memory and in files.

Flower keeps one table of objects for all, by their digests. There, a site that guesses an object learns whether
another one has sent it, announces it with other parts so that an honest one cannot, fetches it, or deletes it. Here a
reply's objects are its own, a site fetches what was addressed to it, and sends what it was asked for: so many objects
and bytes as the server process has said, and no more. What the server process sends to many sites is kept once.

Nothing of it goes into the database: what a message was made of is gone when the message is.

Uses Flower's private object store; flwr is pinned exactly for it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import islice
from uuid import uuid4

from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import get_object_id, is_valid_sha256_hash, iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import validate_object_content
from flwr.supercore.object_store import NoObjectInStoreError, ObjectStore

from msfl_server.flower.object_folder import LARGE_BYTES, ObjectFolder
from msfl_server.rounds.reply_bounds import REST, ReplyBounds

STALE_S = 180.0  # a reply of which nothing came for so long is lost
KEPT_S = 60.0  # how long a message is kept after its time is over
# For the time of a call: the node that it is from, None for the server process's; and what the site that a request is
# for may answer.
calling: ContextVar[int | None] = ContextVar("calling", default=None)
asked_for: ContextVar[ReplyBounds] = ContextVar("asked_for", default=REST)


class TooMuchError(Exception):
    """A site sent more than it was asked for."""


@dataclass
class _Parcel:
    """The objects of one message.

    Attributes:
        space: where its objects are: a reply's own, or that of all requests.
        node: the site that it is from or for.
        session: names the parcel while its objects arrive.
        missing: those that have not.
        until: when it is forgotten.
        room: how many bytes may still arrive; None without a limit.
        refused: it was more than it may be; nothing of it is kept.
    """

    run_id: int
    tree: ObjectTree
    space: str
    node: int
    session: str
    names: set[str]
    missing: set[str]
    until: float
    room: int | None = None
    refused: bool = False
    touched: float = field(default_factory=time.monotonic)


class ParcelStore(ObjectStore):
    """Flower's object store, by messages."""

    def __init__(self, files: ObjectFolder) -> None:
        self._files = files
        self._parcels: dict[str, _Parcel] = {}  # by the message's id, which is its first object's
        self._held: dict[tuple[str, str], bytes] = {}  # by space and name; empty for a file
        self._lock = threading.RLock()
        files.clear()

    def initialize(self) -> None:
        """Flower's stores are opened so; there is nothing to do."""

    def announce_request(self, run_id: int, node: int, tree: ObjectTree, session: str, until: float) -> list[str]:
        """A message to a site will come; which of its objects are not here. It is kept until a time."""
        self._forget_old()
        return self._announce(_Parcel(run_id, tree, "", node, session, set(), set(), until))

    def announce_reply(
        self, run_id: int, node: int, tree: ObjectTree, session: str, until: float, bounds: ReplyBounds
    ) -> list[str]:
        """A site's message will come; all its objects, whatever others have sent.

        Raises:
            TooMuchError: of more objects than it was asked for; it is known as refused from now on.
        """
        with self._lock:
            before = self._parcels.get(tree.object_id)
            if before is not None:  # sent again, as its answer was lost
                before.session = session if before.node == node else before.session
                return sorted(before.missing) if before.node == node else []
            parcel = _Parcel(run_id, tree, tree.object_id, node, session, set(), set(), until, room=bounds.num_bytes)
            if len(list(islice(iterate_object_tree(tree), bounds.num_objects + 1))) > bounds.num_objects:
                self._parcels[tree.object_id] = parcel
                self._refuse(parcel)
                raise TooMuchError
            return self._announce(parcel)

    def _announce(self, parcel: _Parcel) -> list[str]:
        parcel.names = {part.object_id for part in iterate_object_tree(parcel.tree)}
        if not all(map(is_valid_sha256_hash, parcel.names)):
            raise ValueError("objects without a digest for a name")
        with self._lock:
            parcel.missing = {name for name in parcel.names if (parcel.space, name) not in self._held}
            self._parcels[parcel.tree.object_id] = parcel
            return sorted(parcel.missing)

    def _forget_old(self) -> None:
        with self._lock:
            moment = time.monotonic()
            for message_id in [name for name, parcel in self._parcels.items() if parcel.until < moment]:
                self.delete(message_id)

    def receive(self, session: str, node: int | None, name: str, content: bytes) -> bool:
        """Keep an object of a message that was announced; empty content stands for a file that is there already.

        Args:
            session: as given when it was announced.
            node: the site that sends it; None for the server process.
            name: the object's.
            content: the object.

        Returns:
            Whether it was one of the message's.

        Raises:
            TooMuchError: it is more than was asked for; all that came of the message is dropped.
        """
        with self._lock:
            waiting = [
                parcel
                for parcel in self._parcels.values()
                if parcel.session == session and name in parcel.missing and node in (None, parcel.node)
            ]
            if not waiting:
                return False
            first = waiting[0]
            if first.room is not None:
                first.room -= len(content)
                if first.room < 0:
                    self._refuse(first)
                    raise TooMuchError
            self._keep(first.space, name, content, may_be_file=node is None)
            for parcel in self._parcels.values():
                if parcel.space == first.space:
                    parcel.missing.discard(name)
                    parcel.touched = time.monotonic()
            return True

    def _keep(self, space: str, name: str, content: bytes, may_be_file: bool) -> None:
        if not content:
            if not may_be_file or not self._files.has(space, name):
                raise ValueError("an object without content")
            self._held[space, name] = b""
            return
        if name != get_object_id(content):
            raise ValueError("an object that is not what it is called")
        validate_object_content(content=content)
        if len(content) >= LARGE_BYTES:
            self._files.write(space, name, content)
            content = b""
        self._held[space, name] = content

    def _refuse(self, parcel: _Parcel) -> None:
        self._drop(parcel)
        parcel.refused, parcel.room, parcel.missing, parcel.names = True, 0, set(), set()
        parcel.tree = ObjectTree(object_id=parcel.tree.object_id)

    def _drop(self, parcel: _Parcel) -> None:
        others = [
            other.names for other in self._parcels.values() if other.space == parcel.space and other is not parcel
        ]
        for name in parcel.names.difference(*others):
            if self._held.pop((parcel.space, name), None) == b"":
                self._files.remove(parcel.space, name)

    def for_site(self, node: int, name: str) -> bytes | None:
        """An object of a message to a site, empty while it is not here; None if there is no such message."""
        with self._lock:
            for parcel in self._parcels.values():
                if parcel.node == node and not parcel.space and name in parcel.names:
                    return self._read("", name)
        return None

    def for_server(self, name: str) -> bytes | None:
        """An object of a message to the server process, empty while it is not here; None if it does not come."""
        with self._lock:
            mine = [parcel for parcel in self._parcels.values() if parcel.space and name in parcel.names]
            for parcel in mine:
                if content := self._read(parcel.space, name):
                    return content
            moment = time.monotonic()
            return b"" if any(moment - parcel.touched < STALE_S for parcel in mine) else None

    def _read(self, space: str, name: str) -> bytes:
        return self._held.get((space, name), b"") or self._files.read(space, name) or b""

    def is_for(self, message_id: str, node: int) -> bool:
        """Whether there is such a message to a site."""
        parcel = self._parcels.get(message_id)
        return parcel is not None and parcel.node == node and not parcel.space

    def was_refused(self, message_id: str) -> bool:
        """Whether a reply was more than its site was asked for."""
        parcel = self._parcels.get(message_id)
        return parcel is not None and parcel.refused

    def expects(self, node: int, num_bytes: int) -> bool:
        """Whether a call of a site may carry so much; if not, what it was about to send is refused."""
        with self._lock:
            coming = [
                parcel
                for parcel in self._parcels.values()
                if parcel.node == node and parcel.missing and parcel.room is not None
            ]
            # What names an object is sent with it.
            if num_bytes <= LARGE_BYTES + max((parcel.room or 0 for parcel in coming), default=0):
                return True
            for parcel in coming:
                self._refuse(parcel)
        return False

    def preregister(self, run_id: int, object_tree: ObjectTree) -> list[str]:
        """Flower's own message to the server process, such as that a site is gone."""
        name, until = object_tree.object_id, time.monotonic() + STALE_S
        return self._announce(_Parcel(run_id, object_tree, name, 0, uuid4().hex, set(), set(), until))

    def put(self, object_id: str, object_content: bytes) -> None:
        """An object of Flower's own message."""
        with self._lock:
            for parcel in list(self._parcels.values()):
                if parcel.node == 0 and object_id in parcel.missing:
                    self._keep(parcel.space, object_id, object_content, may_be_file=False)
                    parcel.missing.discard(object_id)
                    return
        if not any(object_id in parcel.names for parcel in self._own()):
            raise NoObjectInStoreError(f"Object {object_id} was not announced.")

    def _own(self) -> Iterator[_Parcel]:
        return (parcel for parcel in self._parcels.values() if parcel.node == 0)

    def get(self, object_id: str) -> bytes | None:
        """As `for_server`."""
        return self.for_server(object_id)

    def get_object_tree(self, object_id: str) -> ObjectTree:
        """The names of a message's objects."""
        parcel = self._parcels.get(object_id)
        if parcel is None:
            raise NoObjectInStoreError(f"Message {object_id} was not announced.")
        return parcel.tree

    def delete(self, object_id: str) -> None:
        """A message is read, or given up: forget what it was made of."""
        with self._lock:
            parcel = self._parcels.get(object_id)
            if parcel is not None:
                self._drop(parcel)
                del self._parcels[object_id]

    def delete_objects_in_run(self, run_id: int) -> None:
        """Forget all messages of a run."""
        with self._lock:
            for message_id in [name for name, parcel in self._parcels.items() if parcel.run_id == run_id]:
                self.delete(message_id)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._parcels.clear()
            self._held.clear()
            self._files.clear()

    def __contains__(self, object_id: str) -> bool:
        return any(object_id in parcel.names for parcel in self._parcels.values())

    def __len__(self) -> int:
        return len(self._held)
