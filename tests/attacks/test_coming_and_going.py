"""A site that goes and comes back all the time, or loses each answer: it is asked again, and not without end."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count

import pytest
from flwr.app import Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode

from msfl_common.config.study import Rounds
from msfl_server.research.simulation.grid import InProcessGrid
from msfl_server.rounds import exchange
from msfl_server.rounds.exchange import Presence, Question, ask
from msfl_server.rounds.failures import NO_ANSWER

HONEST, HOSTILE = 1, 2


class Restless(InProcessGrid):
    """Of two sites, one is online anew whenever somebody looks; or it says that what it was sent is lost."""

    def __init__(self, loses: bool) -> None:
        super().__init__(ClientApp(), 2)
        self.loses, self.number, self.asked = loses, count(), list[int]()

    def presence(self) -> dict[int, Presence]:
        came = "" if self.loses else str(next(self.number))
        return {HONEST: Presence("site-a", ""), HOSTILE: Presence("site-b", came)}

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        messages = list(messages)
        self.asked += [message.metadata.dst_node_id for message in messages]
        return super().push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        for message_id in message_ids:
            request = self._waiting[message_id]
            if request.metadata.dst_node_id == HONEST:
                return [Message(RecordDict(), reply_to=request)]
            if self.loses:
                return [Message(Error(ErrorCode.MESSAGE_UNAVAILABLE), reply_to=request)]
        return []


@pytest.mark.parametrize("loses", [True, False], ids=["loses each answer", "comes and goes"])
def test_a_restless_site_is_not_asked_each_second(monkeypatch: pytest.MonkeyPatch, loses: bool) -> None:
    """A model was packed for it, and waited in the SuperLink, each second of the deadline."""
    monkeypatch.setattr(exchange, "PRESENCE_EVERY_S", 0.01)
    monkeypatch.setattr(exchange, "POLL_S", (0.01, 0.01))
    grid = Restless(loses)
    question = Question("train", RecordDict, lambda site, _: site, "BAD_UPDATE")
    answers = ask(grid, {HONEST: "site-a", HOSTILE: "site-b"}, question, 1, Rounds(deadline_s=1.5))
    assert answers.replies == {HONEST: "site-a"}
    assert [(failure.site, failure.code) for failure in answers.failures] == [("site-b", NO_ANSWER)]
    assert grid.asked.count(HOSTILE) == 3, "at once, when it was away for the first time, and a second later"
