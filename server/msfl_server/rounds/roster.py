"""Who takes part in a round: sites that are online, have told their facts, and are not suspended."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

from msfl_common.config.message_kinds import SEGMENTATION
from msfl_common.messages.records import RoundTask, pack_task, unpack_facts
from msfl_common.models.weights import Weights
from msfl_server.results.summary import SUSPENDED, SiteFailure
from msfl_server.rounds.exchange import Grid, Question, ask, gather, members_of, names_of, presence
from msfl_server.rounds.failures import BAD_FACTS, NOT_ONLINE, STRANGER
from msfl_server.rounds.listener import Listener
from msfl_server.rounds.metrics import facts_within
from msfl_server.rounds.sampling import sampled


@dataclass
class Roster:
    """The nodes that have told their site's name, and who cannot take part.

    Attributes:
        names: node id to site.
        absent: why sites cannot take part in this round.
        expected: sites that a round waits for before it begins.
        invited: sites that a round without them names as left out.
        harmonized: nodes that have the reference of the harmonization.
        told: site to the training cases in its facts, rounded down.
        suspended: sites that are not asked in this round; see `suspension`.
        sampled: the nodes to ask in this round; None: all.
        lesions: the final weights of a stage of segmentation before, which sites are handed as they are met.
    """

    names: dict[int, str] = field(default_factory=dict)
    absent: tuple[SiteFailure, ...] = ()
    expected: tuple[str, ...] = ()
    invited: tuple[str, ...] = ()
    harmonized: set[int] = field(default_factory=set)
    told: dict[str, int] = field(default_factory=dict)
    suspended: Mapping[str, int] = field(default_factory=dict)
    sampled: frozenset[int] | None = None
    lesions: Weights | None = None

    def present(self, grid: Grid) -> dict[int, str]:
        """The nodes to ask in this round, and their sites."""
        online = set(grid.get_node_ids())
        able = {node: name for node, name in self.names.items() if node in online and name not in self.suspended}
        return {node: name for node, name in able.items() if self.sampled is None or node in self.sampled}

    def sample(self, task: RoundTask, nodes: Iterable[int], known: Mapping[int, str]) -> None:
        """Settle whom this round asks; a simulation's node without a name goes by its number."""
        study, left_out = task.settings, {task.study.left_out, *self.suspended}
        names = {node: self.names.get(node) or known.get(node, str(node)) for node in nodes}
        chosen = sampled(study, task.round, {name for name in names.values() if name not in left_out})
        self.sampled = frozenset(node for node, name in names.items() if name in chosen)

    def forget(self, sites: Container[str]) -> None:
        """Ask sites for their facts anew: it may have been these that were no longer true."""
        self.names = {node: name for node, name in self.names.items() if name not in sites}


def meet_sites(grid: Grid, task: RoundTask, roster: Roster, listener: Listener) -> None:
    """Wait for the expected sites, settle whom the round asks, and ask those of them not yet known for their facts.

    After a stage of segmentation, they are handed its final weights as they are asked: who comes late, or comes back,
    has them before anything is measured. One that refuses is asked again before the next round.
    """
    rounds, number, left_out = task.settings.rounds, task.round, task.study.left_out
    on_wait = partial(listener.on_wait, number)
    gather(grid, roster.expected, rounds, partial(on_wait, "coming online"), {left_out, *roster.suspended})
    online = presence(grid)
    known = names_of(grid, online)
    members = members_of(grid)
    invited = set(roster.invited) if members is None else members & set(roster.invited)
    missing = sorted(invited - set(known.values()) - set(roster.suspended))
    if rounds.fraction < 1:
        roster.sample(task, known if online is not None else grid.get_node_ids(), known)
    roster.absent = (
        *(SiteFailure(site=name, code=NOT_ONLINE) for name in missing),
        *(SiteFailure(site=name, code=SUSPENDED) for name in roster.suspended),
    )
    roster.absent = (*roster.absent, *_ask_facts(grid, task, roster, listener))


def meet_all(grid: Grid, task: RoundTask, roster: Roster, listener: Listener) -> tuple[SiteFailure, ...]:
    """Ask the sites that no round has asked yet for their facts, so that all are present; who fails to tell them."""
    roster.sampled = None
    return _ask_facts(grid, task, roster, listener)


def _ask_facts(grid: Grid, task: RoundTask, roster: Roster, listener: Listener) -> tuple[SiteFailure, ...]:
    online, lesions = presence(grid), roster.lesions
    known = names_of(grid, online)
    # Where the link knows the name of each node's key, a node without one has come this moment: it is met next round.
    nodes = [node for node in grid.get_node_ids() if node not in roster.names and (online is None or node in known)]
    nodes = [node for node in nodes if roster.sampled is None or node in roster.sampled]
    strangers = {node: known.get(node, f"{STRANGER}{node}") for node in nodes}
    strangers = {node: name for node, name in strangers.items() if name not in roster.suspended}
    if not strangers:
        return ()
    question = Question(
        "query" if lesions is None else f"query.{SEGMENTATION}",
        lambda: pack_task(task, lesions),
        lambda _, content: facts_within(unpack_facts(content), task.settings.rounds),
        BAD_FACTS,
    )
    on_wait = partial(listener.on_wait, task.round, "facts")
    answers = ask(grid, strangers, question, task.round, task.settings.rounds, on_wait)
    failures = list(answers.failures)
    for node, facts in sorted(answers.replies.items()):
        if known.get(node, facts.site) != facts.site:
            failures.append(SiteFailure(site=known[node], code="WRONG_NAME"))
        elif facts.site in roster.names.values():
            failures.append(SiteFailure(site=facts.site, code="DUPLICATE_NAME"))
        else:
            roster.names[node], roster.told[facts.site] = facts.site, facts.cases_at_least
    return tuple(failures)
