"""Ask all sites and wait for their answers: never without a name to wait for, never past the deadline."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
from flwr.app import Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid as Grid  # for the modules beside this one

from msfl_common.config.message_kinds import MASKED_AS, REQUESTS
from msfl_common.config.study import Rounds
from msfl_common.errors import Code, UpdateError
from msfl_common.messages.ledger import take_head, with_receipt
from msfl_common.messages.records import size_of, unpack_refusal
from msfl_common.models.weights import Weights
from msfl_common.system.words import counted
from msfl_server.results.received import REFUSAL, Received
from msfl_server.results.summary import SiteFailure
from msfl_server.rounds.failures import BAD_REPLY, NO_ANSWER, REMOVED, STRANGER, TOO_LARGE, UNREADABLE, WENT_OFFLINE
from msfl_server.rounds.reply_bounds import ReplyBounds, bounds_of_answer
from msfl_server.study.ledger_heads import Notary

log = logging.getLogger(__name__)
T = TypeVar("T")

POLL_S = (0.1, 0.5)  # pause between two looks for replies: short at first, then growing
PRESENCE_EVERY_S = 1.0
ENOUGH_S = 5.0  # for which others are waited for, once there are answers enough
AGAIN_S = (1.0, 60.0)  # pause before a site is asked for the third time, and doubled each time; it is at most this
_LOST = (ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE, ErrorCode.NODE_UNAVAILABLE)

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
class Answers(Generic[T]):
    """What came back: what was read of each reply, by node, and why the others failed."""

    replies: Mapping[int, T]
    failures: tuple[SiteFailure, ...]


@dataclass(frozen=True)
class Question(Generic[T]):
    """What the sites are asked, and how their answers are read.

    Attributes:
        kind: the request, by its name in `config.message_kinds.REQUESTS`: sites refuse any other.
        pack: makes the request; each time anew, as a large one is not kept while the answers are awaited.
        read: makes of a site's name and its reply what is kept; raises UpdateError for what must be refused.
        bad: the failure code of a refused answer.
        like: the arrays that an answer holds, where it holds a model's; no site may send much more.
        bounds: the largest answer, where that does not follow from `like`.
        is_masked: whether the answers are values under masks.
        pack_for: makes the request of one site, by its name, where each is asked something else; in place of `pack`.
        again: refusals after which a site is asked again, as its people may mend what they are for.
        is_enough: whether the answers so far will do; the others are then waited for `ENOUGH_S` more.
    """

    kind: str
    pack: Callable[[], RecordDict]
    read: Callable[[str, RecordDict], T]
    bad: str
    like: Weights | None = None
    bounds: ReplyBounds | None = None
    is_masked: bool = False
    pack_for: Callable[[str], RecordDict] | None = None
    again: Container[str] = ()
    is_enough: Callable[[], bool] = lambda: False

    @property
    def answer(self) -> str:
        """The kind of message that it is answered with."""
        kind = REQUESTS[self.kind].answer
        return MASKED_AS[kind] if self.is_masked else kind


@dataclass
class _Wait:
    """A node that has not answered yet; `requests` are the ids of what it was sent and may answer.

    A site that comes and goes all the time must not have a model packed for it each second. `refused`: why it has
    refused, where it is asked again.
    """

    requests: set[str]
    joined_at: str = ""
    times_asked: int = 0
    not_before: float = 0.0
    offline_since: float | None = None
    refused: str = ""


@dataclass
class _Exchange(Generic[T]):
    """One request to several nodes."""

    grid: Grid
    names: Mapping[int, str]
    round_number: int
    end: float
    question: Question[T]
    pending: dict[int, _Wait] = field(default_factory=dict)
    replies: dict[int, T] = field(default_factory=dict)
    failures: list[SiteFailure] = field(default_factory=list)

    def send(self, nodes: Iterable[int], online: Mapping[int, Presence] | None) -> None:
        """Send the request, for the first time or again."""
        nodes = list(nodes)
        expect = getattr(self.grid, "expect", None)  # on one machine, nothing is sent
        if expect is not None:
            expect(self.question.bounds or bounds_of_answer(self.question.like))
        ids = self.grid.push_messages(self._requests(nodes)) if nodes else []
        for node, message_id in zip(nodes, ids, strict=True):
            wait = self.pending.setdefault(node, _Wait(set()))
            wait.requests.add(message_id)
            wait.joined_at = online[node].joined_at if online and node in online else ""
            first_s, longest_s = AGAIN_S
            if wait.times_asked:
                wait.not_before = time.monotonic() + min(first_s * 2.0 ** min(wait.times_asked - 1, 30), longest_s)
            wait.times_asked += 1

    def _requests(self, nodes: Sequence[int]) -> list[Message]:
        kind, group, left_s = self.question.kind, str(self.round_number), max(1.0, self.end - time.monotonic())
        if (pack_for := self.question.pack_for) is not None:
            contents = [pack_for(self.names[node]) for node in nodes]
        else:
            contents = [self.question.pack()] * len(nodes)
        return [
            Message(self._with_receipt(content, node), node, kind, ttl=left_s, group_id=group)
            for node, content in zip(nodes, contents, strict=True)
        ]

    def _with_receipt(self, content: RecordDict, node: int) -> RecordDict:
        notary = notary_of(self.grid)
        receipt = notary.receipt(self.names[node]) if notary else None
        return with_receipt(content, receipt) if receipt else content

    def collect(self, comes_back: bool) -> bool:
        """Read a reply that is there; whether there was one.

        One at a time, and each is let go once it is read: many large ones would not fit into memory.
        """
        owners = {request: node for node, wait in self.pending.items() for request in wait.requests}
        for request, node in owners.items():
            for reply in self.grid.pull_messages([request]):
                if comes_back and reply.has_error() and reply.error.code in _LOST:
                    self.pending[node].requests.discard(request)
                else:
                    wait = self.pending.pop(node)
                    failure = self._read(node, reply)
                    if failure is not None and comes_back and failure.code in self.question.again:
                        wait.requests, wait.refused = set(), failure.code
                        self.pending[node] = wait
                    elif failure is not None:
                        self.failures.append(failure)
                return True
        return False

    def _read(self, node: int, reply: Message) -> SiteFailure | None:
        """Whatever is wrong with a reply is its site's failure; of what the site has sent, the log has nothing."""
        name, measured = self.names[node], self._measure(reply)
        try:
            if not reply.has_error():
                head, notary = take_head(reply.content), notary_of(self.grid)
                if notary is not None:
                    notary.note(name, head)
            failure = _failure(reply, name)
            if failure is None:
                with np.errstate(all="ignore"):
                    self.replies[node] = self.question.read(name, reply.content)
        except UpdateError as error:
            log.warning("%s: answer refused: %s", name, error)
            failure = SiteFailure(site=name, code=self.question.bad)
        except OSError:
            raise  # the coordinator's own disk
        except Exception as error:
            log.warning("%s: answer refused, as reading it failed: %s", name, type(error).__name__)
            failure = SiteFailure(site=name, code=self.question.bad)
        self._count(node, name if failure is None else failure.site, measured)
        return failure

    def _measure(self, reply: Message) -> tuple[str, int] | None:
        """Kind and size of what came, before it is read: that lets go of its arrays. None where there is nothing."""
        if received_by(self.grid) is None or not reply.has_content():
            return None
        with suppress(Exception):  # whatever is odd in it is named where it is read
            kind = self.question.answer if unpack_refusal(reply.content) is None else REFUSAL
            return kind, size_of(reply.content)
        return None

    def _count(self, node: int, name: str, measured: tuple[str, int] | None) -> None:
        """Write down how much came, under the name that the site was authorised for, or gave."""
        if measured is not None and (received := received_by(self.grid)) is not None:
            given = getattr(self.replies.get(node), "site", "") if name.startswith(STRANGER) else ""
            received.note(given or name, *measured)

    def watch(self, online: Mapping[int, Presence], patience_s: float) -> None:
        """Send again to nodes that were away; give up those that stay away."""
        again, members = [], members_of(self.grid)
        for node, wait in list(self.pending.items()):
            if members is not None and not (self.names[node] in members or self.names[node].startswith(STRANGER)):
                self.failures.append(SiteFailure(site=self.names[node], code=REMOVED))
                del self.pending[node]
                continue
            if node in online:
                wait.offline_since = None
                is_lost = not wait.requests or online[node].joined_at != wait.joined_at
                if is_lost and time.monotonic() >= wait.not_before:
                    again.append(node)
                continue
            wait.offline_since = wait.offline_since or time.monotonic()
            if time.monotonic() - wait.offline_since > patience_s:
                self.failures.append(SiteFailure(site=self.names[node], code=WENT_OFFLINE))
                del self.pending[node]
        for node in (node for node in again if not self.pending[node].refused):
            log.info("%s was away, or its answer was lost on the way; it is asked again", online[node].site)
        self.send(again, online)


def notary_of(grid: Grid) -> Notary | None:
    """Who countersigns the ends of the sites' ledgers; None on one machine."""
    notary = getattr(grid, "notary", None)
    assert notary is None or isinstance(notary, Notary)
    return notary


def received_by(grid: Grid) -> Received | None:
    """Who counts what comes of the sites; see `rounds.loop`."""
    received = getattr(grid, "received", None)
    assert received is None or isinstance(received, Received)
    return received


def names_of(grid: Grid, online: Mapping[int, Presence] | None) -> dict[int, str]:
    """By node, the site's name where it is known before the site says it: of its key, or of a simulation's nodes."""
    told: Mapping[int, str] = getattr(grid, "site_names", {})
    return {node: here.site for node, here in online.items()} if online is not None else dict(told)


def presence(grid: Grid) -> dict[int, Presence] | None:
    """The nodes that are online; None on one machine, where sites do not come and go."""
    who = getattr(grid, "presence", None)
    return None if who is None else who()


def members_of(grid: Grid) -> frozenset[str] | None:
    """The sites that are authorised at this moment; None on one machine, where none is taken away."""
    who = getattr(grid, "members", None)
    return None if who is None else frozenset(who())


def ask(
    grid: Grid,
    names: Mapping[int, str],
    question: Question[T],
    round_number: int,
    rounds: Rounds,
    on_wait: OnWait = lambda *_: None,
) -> Answers[T]:
    """Put a question to every node in `names` and read the answers until the deadline.

    A node that was away meanwhile is asked again; one that stays away for `rounds.patience_s` is given up.

    Args:
        grid: Flower's grid, in-process, simulated or deployed.
        names: node id to what the node is called in messages to people.
        question: what is asked, the same of all.
        round_number: the round that it belongs to.
        rounds: deadline and patience.
        on_wait: told the names still awaited, whenever they change.
    """
    end = time.monotonic() + rounds.deadline_s
    exchange = _Exchange(grid, names, round_number, end, question)
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
        if changed and question.is_enough():
            end = min(end, time.monotonic() + ENOUGH_S)
        if changed or time.monotonic() - told > PRESENCE_EVERY_S:
            told = time.monotonic()
            on_wait(sorted(names[node] for node in exchange.pending), end - told)
        if exchange.pending and not changed:
            time.sleep(pause)
            pause = min(1.1 * pause, longest)
    late = {} if question.is_enough() else exchange.pending
    unanswered = (SiteFailure(site=names[node], code=wait.refused or NO_ANSWER) for node, wait in late.items())
    failures = [*exchange.failures, *unanswered]
    return Answers(exchange.replies, tuple(sorted(failures, key=lambda failure: failure.site)))


def gather(
    grid: Grid, expected: Iterable[str], rounds: Rounds, on_wait: OnWait, without: Container[str | None] = ()
) -> None:
    """Wait for the expected sites to be online: at most `patience_s` for all, at most `deadline_s` for a quorum.

    The sites in `without`, left out of training or suspended, do not count for the quorum.
    """
    start = time.monotonic()
    while (online := presence(grid)) is not None:
        here = {node.site for node in online.values()}
        members = members_of(grid)
        missing = sorted((set(expected) if members is None else members & set(expected)) - here)
        able = [name for name in here if name not in without]
        waited, lacking = time.monotonic() - start, rounds.quorum - len(able)
        limit = rounds.deadline_s if lacking > 0 else rounds.patience_s
        if waited >= limit or (not missing and lacking <= 0):
            return
        on_wait(missing or [counted(lacking, "more site")], limit - waited)
        time.sleep(POLL_S[1])


def _failure(reply: Message, name: str) -> SiteFailure | None:
    if reply.has_error():
        if reply.error.code == TOO_LARGE:
            return SiteFailure(site=name, code="TOO_LARGE")
        # Flower's own text could quote the site's data.
        return SiteFailure(site=name, code=BAD_REPLY if reply.error.code == UNREADABLE else Code.INTERNAL.value)
    refusal = unpack_refusal(reply.content)
    if refusal is None:
        return None
    site = (refusal.site or name) if name.startswith(STRANGER) else name
    return SiteFailure(site=site, code=refusal.code.value)
