"""Sites' half of sums under masks, in memory, for tests of the coordinator's: keys are real, values are at random."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp
from tests.common.secure_aggregation.hospitals import entry_of

from msfl_common.errors import Code
from msfl_common.messages.masks import (
    context_of,
    pack_hidden,
    pack_mask_key,
    pack_shares,
    unpack_opening,
    unpack_roster,
)
from msfl_common.messages.records import NodeFacts, Refusal, pack_facts, pack_refusal
from msfl_common.secure_aggregation.ring import UPDATES, Ring, Words
from msfl_common.secure_aggregation.roster import Roster
from msfl_common.secure_aggregation.site import MaskKeys, Shares, expect_opening
from msfl_server.research.simulation.grid import InProcessGrid
from msfl_server.rounds.checkpoint import RunState

STUDY, LENGTH = "masked", 20


class Killed(BaseException):
    """Stands for a kill: nothing in the product catches it."""


class Waits:
    """A listener that keeps what was waited for."""

    def __init__(self) -> None:
        self.waited: list[tuple[str, list[str]]] = []

    def on_start(self, state: RunState) -> None:
        """See `Listener`."""

    def on_wait(self, number: int, what: str, sites: list[str], left_s: float) -> None:
        """See `Listener`."""
        self.waited.append((what, sites))

    def on_round(self, state: RunState) -> None:
        """See `Listener`."""


@dataclass
class MaskingSite:
    """A site that keeps to the protocol, but for what a test makes of it."""

    name: str
    ring: Ring = UPDATES
    site_key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP384R1()))
    mask_key: X25519PrivateKey = field(default_factory=X25519PrivateKey.generate)
    roster: Roster | None = None
    words: Words | None = None
    study: str = STUDY
    confirms: bool = True
    refuses: set[str] = field(default_factory=set)
    shares_of: Callable[[Shares], Shares] = lambda shares: shares
    asked: list[str] = field(default_factory=list)
    opened: dict[str, str] = field(default_factory=dict)
    sent: dict[bytes, str] = field(default_factory=dict)

    def value(self) -> Words:
        """What the site adds to every sum."""
        if self.words is not None:
            return self.words
        values = np.random.default_rng(random.Random(self.name).randrange(99)).normal(size=LENGTH)
        return self.ring.encode(values, 100)

    def answer(self, kind: str, content: RecordDict) -> RecordDict:
        """What it answers to a request."""
        self.asked.append(kind)
        if kind in self.refuses:
            return pack_refusal(Refusal(Code.INTERNAL, self.name))
        if kind == "query.mask_key":
            return pack_mask_key(entry_of(self.name, self.site_key, self.mask_key, self.study))
        if kind == "query.roster":
            self.roster = unpack_roster(content)
        if not self.confirms:
            return pack_refusal(Refusal(Code.ROSTER_UNCONFIRMED, self.name))
        if kind in ("query", "query.roster"):
            return pack_facts(NodeFacts(self.name, "1.0", 10))
        assert self.roster is not None
        keys = MaskKeys(self.roster, self.name, self.mask_key, random.Random(self.name).randbytes(32), self.site_key)
        if kind == "query.opening":
            opening = unpack_opening(content)
            expect_opening(self.roster, opening, self.name, self.opened.get(opening.context.request))
            self.opened[opening.context.request] = opening.digest
            return pack_shares(self.shares_of(keys.shares_for(opening)))
        context = context_of(content)
        assert context is not None
        hidden = keys.hide(context, self.ring, self.value())
        assert self.sent.setdefault(context.digest, hidden.head.payload) == hidden.head.payload
        return pack_hidden(hidden)


def make_sites(num_sites: int, ring: Ring = UPDATES) -> list[MaskingSite]:
    """So many."""
    return [MaskingSite(f"site-{number:02d}", ring) for number in range(num_sites)]


def grid_of_masking(sites: Sequence[MaskingSite]) -> InProcessGrid:
    """Node i, from 1 on, is the i-th of these."""

    class App(ClientApp):
        def __call__(self, message: Message, context: object) -> Message:
            site = sites[message.metadata.dst_node_id - 1]
            return Message(site.answer(message.metadata.message_type, message.content), reply_to=message)

    return InProcessGrid(App(), len(sites))
