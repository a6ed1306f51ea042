"""Whom a round waits for."""

from __future__ import annotations

from collections.abc import Iterable

from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp

from msfl_common.config.study import Rounds
from msfl_server.research.simulation.grid import InProcessGrid
from msfl_server.rounds.exchange import PRESENCE_EVERY_S, Presence, Question, ask, gather


class Silent(InProcessGrid):
    """Sites that are online and never answer; site-b is taken away once it was asked."""

    asked = False

    def presence(self) -> dict[int, Presence]:
        return {1: Presence("site-a", "")}

    def members(self) -> list[str]:
        return ["site-a"] if self.asked else ["site-a", "site-b"]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        self.asked = True
        return [f"{number}" for number, _ in enumerate(messages)]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        return []


def test_a_site_that_was_removed_is_not_waited_for() -> None:
    grid, waited = Silent(ClientApp(), 2), []
    rounds = Rounds(quorum=1, deadline_s=60, patience_s=0.3)
    gather(grid, ["site-a", "site-b"], rounds, lambda sites, _: waited.append(sites))
    assert waited[0] == ["site-b"]
    waited.clear()
    grid.asked = True
    gather(grid, ["site-a", "site-b"], rounds, lambda sites, _: waited.append(sites))
    assert waited == []


def test_a_site_that_is_removed_in_a_round_is_given_up_at_once() -> None:
    rounds = Rounds(quorum=1, deadline_s=2 * PRESENCE_EVERY_S + 1, patience_s=3000)
    question = Question("query", RecordDict, lambda _, content: content, "BAD_FACTS")
    answers = ask(Silent(ClientApp(), 2), {1: "site-a", 2: "site-b"}, question, 1, rounds)
    assert {failure.site: failure.code for failure in answers.failures} == {"site-a": "NO_ANSWER", "site-b": "REMOVED"}
