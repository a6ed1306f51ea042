"""A sum over sites of which nobody sees a single value: asked for, its members written down, then opened by shares.

Values are added up as they arrive. Whose are in the sum is on disk before any site is asked to open it, and never
changes from then on: each site opens a request once, as two sums of other members differ by a site's own value.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from msfl_common.config.message_kinds import OPENING, REQUESTS
from msfl_common.config.study import Rounds
from msfl_common.errors import RunError
from msfl_common.messages.arrays import BLOCK_VALUES
from msfl_common.messages.masks import pack_opening_task, unpack_hidden, unpack_shares, with_context
from msfl_common.messages.records import Content, RoundTask, purpose_of, request_sha256
from msfl_common.secure_aggregation.context import Context
from msfl_common.secure_aggregation.coordinator import CannotOpenError, MaskedSum
from msfl_common.secure_aggregation.ring import Ring, Words
from msfl_common.secure_aggregation.roster import Roster
from msfl_common.secure_aggregation.site import Shares
from msfl_common.system.words import counted
from msfl_server.results.summary import SiteFailure
from msfl_server.rounds.exchange import PRESENCE_EVERY_S, Answers, Question, ask, presence
from msfl_server.rounds.failures import BAD_SHARES, NO_KEY, UNCONFIRMED, WENT_OFFLINE, meaning_of
from msfl_server.rounds.mask_roster import Masks
from msfl_server.rounds.reply_bounds import bounds_of_bytes
from msfl_server.rounds.sum_store import SumFolder

SHARES = "shares"  # what a run waits for while a sum is opened

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SumRequest:
    """What is added up.

    Attributes:
        kind: the request, by its name in `config.message_kinds.REQUESTS`.
        task: of the round.
        pack: makes the plain request; each time anew.
        ring: in which the answers are added up.
        length: numbers of an answer.
        bad: the failure code of a refused answer.
        fewest: sites that the sum must have, whatever the roster asks.
        may_change: whether another roster may be made for it; see `Masks.prepare`.
    """

    kind: str
    task: RoundTask
    pack: Callable[[], Content]
    ring: Ring
    length: int
    bad: str
    fewest: int = 1
    may_change: bool = False


@dataclass(frozen=True)
class Summed:
    """What a sum came to.

    Attributes:
        total: the sum itself; None where too few sites gave their value, and nothing was opened.
        members: the sites whose values are in it.
        failures: why others are not, and who gave false shares.
    """

    total: Words | None
    members: tuple[str, ...]
    failures: tuple[SiteFailure, ...]


@dataclass
class _Asked:
    """A sum being asked for, from a folder on disk."""

    masks: Masks
    request: SumRequest
    sites: Mapping[int, str]
    on_wait: Callable[[list[str], float], None]
    folder: SumFolder
    digest: str
    failures: list[SiteFailure] = field(default_factory=list)

    def collect(self) -> MaskedSum | None:
        """Ask for the values, and write down whose came; None where they are too few."""
        roster, unconfirmed = self.masks.prepare(self.request.task, self.request.may_change)
        self.failures += [failure for failure in unconfirmed if failure.site in self.sites.values()]
        ready = {node: name for node, name in self.sites.items() if name in self.masks.ready}
        context = self._context(roster, sorted(ready.values()))
        if context is None:
            return None
        masked = MaskedSum(roster, context, self.request.ring, self.request.length)
        asked = {node: name for node, name in ready.items() if name in context.asked}
        answers = self._ask_values(masked, asked)
        self.failures += answers.failures
        self.masks.forget({failure.site for failure in answers.failures if failure.code in (UNCONFIRMED, NO_KEY)})
        if len(masked.heads) < self._fewest(roster):
            return None
        self.folder.fix(masked, self.failures)
        return masked

    def _ask_values(self, masked: MaskedSum, asked: Mapping[int, str]) -> Answers[None]:
        request, num_bytes = self.request, masked.length * masked.ring.bits // 8

        def read(site: str, content: Content) -> None:
            masked.take(site, unpack_hidden(content, site, masked.context, num_bytes))

        question = Question(
            request.kind,
            lambda: with_context(request.pack(), masked.context),
            read,
            request.bad,
            bounds=bounds_of_bytes(num_bytes, math.ceil(num_bytes / (4 * BLOCK_VALUES))),
            is_masked=True,
        )
        rounds = request.task.settings.rounds
        return ask(self.masks.grid, asked, question, request.task.round, rounds, self.on_wait)

    def _context(self, roster: Roster, names: list[str]) -> Context | None:
        """The attempt to make: the last one again, as sites keep their answers to it, or one of those there now."""
        last, fewest = self.folder.attempt(), self._fewest(roster)
        if last is not None and last.roster == roster.digest and len({*last.asked} & {*names}) >= fewest:
            return last
        if len(names) < fewest:
            return None
        attempt = 0 if last is None else last.attempt + 1
        context = Context(roster=roster.digest, request=self.digest, asked=tuple(names), attempt=attempt)
        self.folder.begin(context)
        return context

    def _fewest(self, roster: Roster) -> int:
        return max(roster.min_sites, roster.threshold, self.request.fewest)

    def open(self, masked: MaskedSum) -> Words:
        """The sum itself, by the shares of enough of the sites that were asked.

        Raises:
            RunError: too few of them have answered before the deadline.
        """
        masks, task, shares = self.masks, self.request.task, self.folder.shares()
        rounds, end = task.settings.rounds, time.monotonic() + task.settings.rounds.deadline_s
        refused: dict[str, SiteFailure] = {}
        while not masked.can_open(shares):
            left = {*masked.context.asked} - {*shares} - {*refused}
            left_s, online = end - time.monotonic(), {*masks.grid.get_node_ids()}
            holders = {node: name for node, name in masks.nodes.names.items() if node in online and name in left}
            if left_s <= 0 or not (holders or (left and presence(masks.grid) is not None)):
                raise RunError(_closed(task, masked, shares, refused))
            if not holders:
                self.masks.listener.on_wait(task.round, SHARES, sorted(left), left_s)
                time.sleep(PRESENCE_EVERY_S)
                continue
            answers = self._ask_shares(masked, holders, shares, rounds.model_copy(update={"deadline_s": left_s}))
            refused |= {one.site: one for one in answers.failures if one.code != WENT_OFFLINE}
        opened = masked.open(shares)
        self.failures += [SiteFailure(site=site, code=BAD_SHARES) for site in opened.false]
        self.folder.keep(opened.total)
        return opened.total

    def _ask_shares(
        self, masked: MaskedSum, asked: Mapping[int, str], shares: dict[str, Shares], rounds: Rounds
    ) -> Answers[None]:
        task = self.request.task

        def read(site: str, content: Content) -> None:
            shares[site] = unpack_shares(content, masked.opening(site))
            self.folder.keep_shares(site, shares[site])
            if damaged := shares[site].damaged:
                log.warning("%s could not read what was sealed for it by %s", site, ", ".join(damaged))

        question = Question(
            f"query.{OPENING}",
            lambda: Content(),
            read,
            BAD_SHARES,
            pack_for=lambda site: pack_opening_task(task, masked.opening(site)),
            is_enough=lambda: masked.can_open(shares),
        )
        on_wait = partial(self.masks.listener.on_wait, task.round, SHARES)
        return ask(self.masks.grid, asked, question, task.round, rounds, on_wait)


def ask_sum(
    masks: Masks, sites: Mapping[int, str], request: SumRequest, on_wait: Callable[[list[str], float], None]
) -> Summed:
    """The sum of what sites answer, under masks; a sum that was begun before a crash is gone on with.

    Args:
        masks: the run's.
        sites: whom to ask, node to name.
        request: for what.
        on_wait: told the names still awaited.

    Raises:
        RunError: too few sites have given their shares: the sum stays closed, and the next start opens the same one.
        InputError: what was kept of the sum is damaged.
    """
    purpose = purpose_of(REQUESTS[request.kind], request.task)
    assert purpose is not None
    digest = request_sha256(purpose, request.task, request.pack())
    folder = SumFolder(masks.out, digest)
    asked = _Asked(masks, request, sites, on_wait, folder, digest)
    if (kept := folder.fixed(request.ring, request.length)) is not None:
        masked: MaskedSum | None = kept[0]
        asked.failures += kept[1]
    else:
        masked = asked.collect()
    if masked is None:
        return Summed(None, (), tuple(asked.failures))
    total = folder.total(request.ring, request.length)
    if total is None:
        total = asked.open(masked)
    return Summed(total, tuple(sorted(masked.heads)), tuple(asked.failures))


def _closed(
    task: RoundTask, masked: MaskedSum, shares: Mapping[str, Shares], refused: Mapping[str, SiteFailure]
) -> str:
    """Why a sum could not be opened, and what comes next."""
    try:
        masked.open(shares)
        why = ""
    except CannotOpenError as error:
        why = str(error)
    if sealed_badly := _sealed_badly(masked, shares):
        names = ", ".join(sealed_badly)
        return (
            f"round {task.round}: the sum of {', '.join(sorted(masked.heads))} stays closed for good: too many sites "
            f"could not read what {names} sealed for them. Sites answer a round once, so nobody can be asked again: "
            f"find out what went wrong at {names}, or start without it, as a study of another name"
        )
    reasons = "; ".join(f"{one.site}: {one.code} ({meaning_of(one.code)})" for one in refused.values())
    return (
        f"round {task.round}: the sum of {', '.join(sorted(masked.heads))} stays closed: "
        f"{counted(len(shares), 'site')} gave shares, {masked.roster.threshold} are needed"
        f"{f' ({why})' if why else ''}; {reasons or 'no other site is connected'}. "
        "Bring the sites back and resume: the same sum is opened, nobody trains again"
    )


def _sealed_badly(masked: MaskedSum, shares: Mapping[str, Shares]) -> list[str]:
    """Members of whose shares so many are damaged that the others are too few, whoever still answers."""
    asked, threshold = len(masked.context.asked), masked.roster.threshold
    damaged = {member: sum(member in given.damaged for given in shares.values()) for member in sorted(masked.heads)}
    return [member for member, count in damaged.items() if asked - count < threshold]
