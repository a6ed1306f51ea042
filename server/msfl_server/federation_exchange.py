"""Ask all sites and wait for their answers: never without a name to wait for, never past the deadline."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from msfl_common.errors import SENTENCES
from msfl_common.messages import unpack_refusal
from msfl_server.summary import SiteFailure

NO_ANSWER = "NO_ANSWER"
_MEANINGS = {
    NO_ANSWER: "no answer before the deadline",
    "BAD_UPDATE": "its update was refused: names, shapes, size or values are wrong",
    "BAD_METRICS": "its metrics were refused: names or values are wrong",
    "BAD_FACTS": "its facts were refused",
    "DUPLICATE_NAME": "another node already has this site name",
    **{code.value: sentence for code, sentence in SENTENCES.items()},
}
POLL_S = 0.2


@dataclass(frozen=True)
class Answers:
    """What came back: replies by node, and why the others failed."""

    replies: Mapping[int, Message]
    failures: tuple[SiteFailure, ...]


def ask(
    grid: Grid,
    names: Mapping[int, str],
    content: RecordDict,
    message_type: str,
    round_number: int,
    deadline_s: float,
    on_wait: Callable[[list[str]], None] = lambda _: None,
) -> Answers:
    """Send `content` to every node in `names` and gather replies until the deadline.

    Args:
        grid: Flower's grid, in-process, simulated or deployed.
        names: node id to what the node is called in messages to people.
        content: the request, the same for all.
        message_type: `query`, `train` or `evaluate`.
        round_number: the round the request belongs to.
        deadline_s: seconds after which a silent node counts as failed.
        on_wait: told the names still awaited, whenever they change.
    """
    messages = [Message(content, node, message_type, ttl=deadline_s, group_id=str(round_number)) for node in names]
    pending = dict(zip(grid.push_messages(messages), names, strict=True))
    received: dict[int, Message] = {}
    end = time.monotonic() + deadline_s
    on_wait(sorted(names[node] for node in pending.values()))
    while pending and time.monotonic() < end:
        replies = list(grid.pull_messages(list(pending)))
        for reply in replies:
            received[pending.pop(reply.metadata.reply_to_message_id)] = reply
        if replies:
            on_wait(sorted(names[node] for node in pending.values()))
        elif pending:
            time.sleep(POLL_S)
    good = {node: reply for node, reply in received.items() if _failure(reply, names[node]) is None}
    failures = [failure for node, reply in received.items() if (failure := _failure(reply, names[node]))]
    failures += [SiteFailure(site=names[node], code=NO_ANSWER) for node in pending.values()]
    return Answers(good, tuple(sorted(failures, key=lambda failure: failure.site)))


def meaning_of(code: str) -> str:
    """The fixed sentence behind a failure code."""
    return _MEANINGS.get(code, "unknown code")


def _failure(reply: Message, name: str) -> SiteFailure | None:
    if reply.has_error():
        return SiteFailure(site=name, code="INTERNAL")  # Flower's own text could quote the site's data
    refusal = unpack_refusal(reply.content)
    return None if refusal is None else SiteFailure(site=refusal.site or name, code=refusal.code.value)
