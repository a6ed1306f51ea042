"""Flower's Grid without processes or network: sites answer one after the other, in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from uuid import uuid4

from flwr.app import Context, Message, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

Answer = Callable[[Message, Context], Message]  # a site's Flower app, or what stands before one


class InProcessGrid(Grid):
    """Hands each message to the site app when its reply is pulled; deterministic and debuggable.

    Node `i` is the i-th site (from 1), so contexts carry Flower's own `partition-id` as in its simulation.
    """

    sites_take_turns = True

    def __init__(self, client_app: Answer, num_sites: int, names: Sequence[str] = ()) -> None:
        """`names`: of the sites, in the order of the nodes, where rounds ask some of them alone."""
        # Flower stamps messages with the identity of the task that its own processes run; here, this process.
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, SUPERLINK_NODE_ID
        self._client_app = client_app
        self._contexts = {
            node: Context(
                run_id=1,
                node_id=node,
                node_config={"partition-id": node - 1, "num-partitions": num_sites},
                state=RecordDict(),
                run_config={},
            )
            for node in range(1, num_sites + 1)
        }
        self._waiting: dict[str, Message] = {}
        self.site_names = dict(zip(self._contexts, names, strict=False))

    def set_run(self, run: Run) -> None:
        """There is one run, and it needs no setting."""

    @property
    def run(self) -> Run:
        """An empty run with id 1."""
        return Run.create_empty(1)

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Flower's older way to make a message."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """All nodes, always."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Sequence[str]:
        """Queue messages; nothing runs yet."""
        ids = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = str(uuid4())  # as Flower's in-memory grid does
            self._waiting[message.metadata.message_id] = message
            ids.append(message.metadata.message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Let the next queued site answer."""
        for message_id in message_ids:
            if message_id in self._waiting:
                message = self._waiting.pop(message_id)
                return [self._client_app(message, self._contexts[message.metadata.dst_node_id])]
        return []

    def send_and_receive(
        self,
        messages: Iterable[Message],
        *,
        timeout: float | None = None,  # noqa: ARG002 (Flower's interface)
    ) -> Iterable[Message]:
        """Push and pull until every site has answered; in-process sites always do."""
        ids = self.push_messages(messages)
        return [reply for _ in ids for reply in self.pull_messages(ids)]
