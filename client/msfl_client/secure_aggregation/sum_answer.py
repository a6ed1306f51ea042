"""An answer that leaves in a masked sum alone: made once, hidden alike each time, written down before it goes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from msfl_client.secure_aggregation.kept_values import Facts, KeptValue, keep_value, kept_value
from msfl_client.secure_aggregation.site_masks import SiteMasks
from msfl_common.config.message_kinds import MASKED_AS
from msfl_common.errors import Code, RefusedError, UpdateError
from msfl_common.messages.outgoing import Masked
from msfl_common.secure_aggregation.context import Context
from msfl_common.secure_aggregation.layout import Layout
from msfl_common.secure_aggregation.ring import SUMS, UPDATES, Ring, Words
from msfl_common.secure_aggregation.roster import Roster
from msfl_common.secure_aggregation.site import MaskKeys

Value = TypeVar("Value")
_RINGS = {ring.bits: ring for ring in (UPDATES, SUMS)}


@dataclass(frozen=True)
class SumAnswer:
    """The place of this site's answer in a sum. Made by `expect_sum`.

    Attributes:
        masks: the site's part in the study's sums.
        keys: for the sum's roster.
        context: of the sum.
        purpose: stage and purpose of the request, under which its value is kept.
    """

    masks: SiteMasks
    keys: MaskKeys
    context: Context
    purpose: str

    @property
    def roster(self) -> Roster:
        """Whose sum it is."""
        return self.keys.roster

    def kept(self) -> KeptValue | None:
        """What the request was answered with before, in this sum or in another attempt; None if it was not."""
        found = kept_value(self.masks.folder, self.purpose, self.context.request)
        return found if found is not None and found.facts.num_sites >= len(self.roster.sites) else None

    def made(
        self, kind: str, layout: Layout[Value], value: Value, num_cases: int, num_patients: int, cases: str = ""
    ) -> KeptValue:
        """The value as numbers of the ring.

        Raises:
            RefusedError: a number is too large to be added up.
        """
        num_sites = len(self.roster.sites)
        try:
            words = layout.encode(value, num_sites)
        except UpdateError as error:
            raise RefusedError(Code.TRAINING_DIVERGED, f"cannot be added up: {error}") from None
        facts = Facts(
            request=self.context.request,
            kind=MASKED_AS[kind],
            bits=layout.ring.bits,
            length=words.shape[1],
            num_sites=num_sites,
            num_cases=num_cases,
            num_patients=num_patients,
            tells=_digest(words, layout.seconds_at),
            parts=_parts(layout.ring, words) if kind == "harmonization_sums" else (),
            cases=cases,
        )
        return KeptValue(facts, words)

    def hide(self, value: KeptValue) -> Masked:
        """The value under its masks.

        Raises:
            RefusedError: what it tells was opened already, in a sum of other sites.
        """
        self.masks.expect_same_sites(self.keys.roster, self.context, (value.facts.tells, *value.facts.parts))
        hidden = self.keys.hide(self.context, _RINGS[value.facts.bits], value.words)
        return Masked(value.facts.kind, hidden, value.facts.num_cases)

    def claim(self, value: KeptValue, masked: Masked) -> None:
        """Keep the value, and write down that it leaves; to be called before it does.

        Raises:
            RefusedError: another value has left under the same masks.
            OSError: it cannot be written down, so it must not leave.
        """
        registers = self.masks.registers
        if self.kept() is None:
            keep_value(self.masks.folder, self.purpose, value)
        head = masked.hidden.head
        registers.sends(registers.read(), self.context.digest.hex(), head.payload, value.facts.tells, value.facts.parts)


def expect_sum(masks: SiteMasks, context: Context, request: str, purpose: str) -> SumAnswer:
    """The place of an answer in the sum that it is asked for.

    Args:
        masks: the site's part in the study's sums.
        context: that came with the request.
        request: the request's digest, as this site works it out.
        purpose: see `SumAnswer`.

    Raises:
        RefusedError: see `SiteMasks.expect`.
    """
    return SumAnswer(masks, masks.expect(context, request), context, purpose)


def _parts(ring: Ring, words: Words) -> tuple[str, ...]:
    """SHA-256 of each number that no other sum has by chance; of a harmonization's, whose features a study chooses."""
    fractions = np.flatnonzero(ring.decode(words) % 1)
    return tuple(sorted({hashlib.sha256(words[:, place].tobytes()).hexdigest() for place in fractions}))


def _digest(words: Words, seconds_at: int | None) -> str:
    """SHA-256 of what a value tells; the seconds that it took are others each time."""
    place = words.shape[1] if seconds_at is None else seconds_at % words.shape[1]
    digest = hashlib.sha256(np.ascontiguousarray(words[:, :place]).data)
    digest.update(np.ascontiguousarray(words[:, place + 1 :]).data)
    return digest.hexdigest()
