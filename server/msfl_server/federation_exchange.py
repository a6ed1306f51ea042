"""Ask all sites and wait for their answers: never without a name to wait for, never past the deadline."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from flwr.app import Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from msfl_common.config import Rounds
from msfl_common.errors import SENTENCES
from msfl_common.messages import unpack_refusal
from msfl_server.summary import SiteFailure

NO_ANSWER, WENT_OFFLINE, NOT_ONLINE = "NO_ANSWER", "WENT_OFFLINE", "NOT_ONLINE"
_MEANINGS = {
    NO_ANSWER: "no answer before the deadline",
    WENT_OFFLINE: "went offline and did not come back in time",
    NOT_ONLINE: "was not online when the round began",
    "BAD_UPDATE": "its update was refused: names, shapes, size or values are wrong",
    "BAD_METRICS": "its metrics were refused: names or values are wrong",
    "BAD_FACTS": "its facts were refused",
    "DUPLICATE_NAME": "another node already has this site name",
    "WRONG_NAME": "it gave another name than its key was authorised for",
    **{code.value: sentence for code, sentence in SENTENCES.items()},
}
STRANGER = "node-"  # what a node is called before it has told its site's name
POLL_S = (0.1, 0.5)  # pause between two looks for replies: short at first, then growing
PRESENCE_EVERY_S = 1.0
_LOST = (ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE, ErrorCode.NODE_UNAVAILABLE)

log = logging.getLogger(__name__)
OnWait = Callable[[list[str], float], None]  # names still awaited, seconds until the deadline


@dataclass(frozen=True)
class Presence:
    """A node that is online.

    Attributes:
        site: the name that its key was authorised for.
        joined_at: when it last came online; a change means that it was away, and may have lost a request.
    """

    site: str
    joined_at: str


@dataclass(frozen=True)
class Answers:
    """What came back: replies by node, and why the others failed."""

    replies: Mapping[int, Message]
    failures: tuple[SiteFailure, ...]


@dataclass
class _Wait:
    """A node that has not answered yet; `requests` are the ids of what it was sent and may answer."""

    requests: set[str]
    joined_at: str = ""
    offline_since: float | None = None


@dataclass
class _Exchange:
    """One request to several nodes."""

    grid: Grid
    request: Callable[[int], Message]
    pending: dict[int, _Wait] = field(default_factory=dict)
    received: dict[int, Message] = field(default_factory=dict)
    gone: list[int] = field(default_factory=list)

    def send(self, nodes: Iterable[int], online: Mapping[int, Presence] | None) -> None:
        """Send the request, for the first time or again."""
        nodes = list(nodes)
        ids = self.grid.push_messages([self.request(node) for node in nodes]) if nodes else []
        for node, message_id in zip(nodes, ids, strict=True):
            wait = self.pending.setdefault(node, _Wait(set()))
            wait.requests.add(message_id)
            wait.joined_at = online[node].joined_at if online and node in online else ""

    def collect(self, comes_back: bool) -> bool:
        """Take the replies that are there; whether there was one."""
        owners = {request: node for node, wait in self.pending.items() for request in wait.requests}
        replies = list(self.grid.pull_messages(list(owners))) if owners else []
        for reply in replies:
            node = owners.get(reply.metadata.reply_to_message_id)
            if node is None or node not in self.pending:
                continue
            if comes_back and reply.has_error() and reply.error.code in _LOST:
                self.pending[node].requests.discard(reply.metadata.reply_to_message_id)
            else:
                self.received[node] = reply
                del self.pending[node]
        return bool(replies)

    def watch(self, online: Mapping[int, Presence], patience_s: float) -> None:
        """Send again to nodes that were away; give up those that stay away."""
        again = []
        for node, wait in list(self.pending.items()):
            if node in online:
                wait.offline_since = None
                if not wait.requests or online[node].joined_at != wait.joined_at:
                    again.append(node)
                continue
            wait.offline_since = wait.offline_since or time.monotonic()
            if time.monotonic() - wait.offline_since > patience_s:
                self.gone.append(node)
                del self.pending[node]
        for node in again:
            log.info("%s was away, or its answer was lost on the way; it is asked again", online[node].site)
        self.send(again, online)


def presence(grid: Grid) -> dict[int, Presence] | None:
    """The nodes that are online; None on one machine, where sites do not come and go."""
    who = getattr(grid, "presence", None)
    return None if who is None else who()


def ask(
    grid: Grid,
    names: Mapping[int, str],
    content: RecordDict,
    message_type: str,
    round_number: int,
    rounds: Rounds,
    on_wait: OnWait = lambda *_: None,
) -> Answers:
    """Send `content` to every node in `names` and gather replies until the deadline.

    A node that was away meanwhile is sent the request again; one that stays away for `rounds.patience_s` is
    given up.

    Args:
        grid: Flower's grid, in-process, simulated or deployed.
        names: node id to what the node is called in messages to people.
        content: the request, the same for all.
        message_type: `query`, `train` or `evaluate`.
        round_number: the round the request belongs to.
        rounds: deadline and patience.
        on_wait: told the names still awaited, whenever they change.
    """
    end = time.monotonic() + rounds.deadline_s
    exchange = _Exchange(
        grid,
        lambda node: Message(
            content, node, message_type, ttl=max(1.0, end - time.monotonic()), group_id=str(round_number)
        ),
    )
    online = presence(grid)
    exchange.send(names, online)
    looked = told = time.monotonic()
    on_wait(sorted(names.values()), rounds.deadline_s)
    pause, longest = POLL_S
    while exchange.pending and time.monotonic() < end:
        changed = exchange.collect(comes_back=online is not None)
        if online is not None and time.monotonic() - looked > PRESENCE_EVERY_S:
            looked = time.monotonic()
            exchange.watch(presence(grid) or {}, rounds.patience_s)
        if changed or time.monotonic() - told > PRESENCE_EVERY_S:
            told = time.monotonic()
            on_wait(sorted(names[node] for node in exchange.pending), end - told)
        if exchange.pending and not changed:
            time.sleep(pause)
            pause = min(1.1 * pause, longest)
    good = {node: reply for node, reply in exchange.received.items() if _failure(reply, names[node]) is None}
    failures = [
        *(failure for node, reply in exchange.received.items() if (failure := _failure(reply, names[node]))),
        *(SiteFailure(site=names[node], code=WENT_OFFLINE) for node in exchange.gone),
        *(SiteFailure(site=names[node], code=NO_ANSWER) for node in exchange.pending),
    ]
    return Answers(good, tuple(sorted(failures, key=lambda failure: failure.site)))


def gather(grid: Grid, expected: Iterable[str], rounds: Rounds, on_wait: OnWait) -> None:
    """Wait for the expected sites to be online: at most `patience_s` for all, at most `deadline_s` for a quorum."""
    start = time.monotonic()
    while (online := presence(grid)) is not None:
        here = {node.site for node in online.values()}
        missing = sorted(set(expected) - here)
        waited = time.monotonic() - start
        limit = rounds.patience_s if len(here) >= rounds.quorum else rounds.deadline_s
        if waited >= limit or (not missing and len(here) >= rounds.quorum):
            return
        on_wait(missing, limit - waited)
        time.sleep(POLL_S[1])


def meaning_of(code: str) -> str:
    """The fixed sentence behind a failure code."""
    return _MEANINGS.get(code, "unknown code")


def _failure(reply: Message, name: str) -> SiteFailure | None:
    if reply.has_error():
        return SiteFailure(site=name, code="INTERNAL")  # Flower's own text could quote the site's data
    refusal = unpack_refusal(reply.content)
    if refusal is None:
        return None
    site = (refusal.site or name) if name.startswith(STRANGER) else name
    return SiteFailure(site=site, code=refusal.code.value)
