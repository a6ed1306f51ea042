"""The coordinator's half: add up values that it cannot read, and open the sum with the shares of enough sites."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from msfl_common.errors import UpdateError
from msfl_common.secure_aggregation import shamir
from msfl_common.secure_aggregation.context import Context
from msfl_common.secure_aggregation.masks import add_masks
from msfl_common.secure_aggregation.ring import Ring, Words
from msfl_common.secure_aggregation.roster import Roster
from msfl_common.secure_aggregation.site import Head, Hidden, Opening, Shares, commit

_MOST_GROUPS = 2000  # tried to find one without a false share


class CannotOpenError(UpdateError):
    """A sum that the answers so far do not open."""


@dataclass(frozen=True)
class Opened:
    """A sum, and the sites whose shares were not those that they had been given."""

    total: Words
    false: tuple[str, ...]


@dataclass
class MaskedSum:
    """The sum of one context while values arrive. What is kept of each site is its head, commitments and boxes.

    Attributes:
        total: sum of the values under their masks, shape (limbs, length).
    """

    roster: Roster
    context: Context
    ring: Ring
    length: int
    total: Words = field(init=False, repr=False)
    heads: dict[str, Head] = field(default_factory=dict)
    commitments: dict[str, tuple[bytes, ...]] = field(default_factory=dict, repr=False)
    boxes: dict[str, Mapping[str, bytes]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.total = np.zeros((self.ring.limbs, self.length), np.uint64)

    def take(self, site: str, hidden: Hidden) -> None:
        """Add a site's value.

        Raises:
            UpdateError: it is not that site's for this sum, is there already, or does not fit what it has signed.
        """
        if hidden.head.site != site or not hidden.head.is_signed(self.roster, self.context):
            raise UpdateError("not signed by the site, for this sum")
        if site in self.heads:
            raise UpdateError("its value is in the sum already")
        others = [name for name in self.context.asked if name != site]
        size = shamir.SHARE_BYTES * len(self.context.asked) + 16
        if sorted(hidden.boxes) != others or any(len(box) != size for box in hidden.boxes.values()):
            raise UpdateError("expected a box of shares for each other site")
        if len(hidden.commitments) != len(self.context.asked) or any(len(one) != 32 for one in hidden.commitments):
            raise UpdateError("expected a commitment for each site")
        if hashlib.sha256(b"".join(hidden.commitments)).hexdigest() != hidden.head.commitments:
            raise UpdateError("the commitments are not those that it has signed")
        if hashlib.sha256(hidden.payload).hexdigest() != hidden.head.payload:
            raise UpdateError("the value is not the one that it has signed")
        self._expect_agreed(site, hidden.commitments)
        self.ring.add_packed(self.total, hidden.payload)
        self.heads[site], self.commitments[site] = hidden.head, hidden.commitments
        self.boxes[site] = dict(hidden.boxes)

    def _expect_agreed(self, site: str, commitments: Sequence[bytes]) -> None:
        """Two sites work out the same seed; where their commitments differ, one of them did not keep to it."""
        asked = self.context.asked
        place = asked.index(site)
        for other, theirs in self.commitments.items():
            if theirs[place] != commitments[asked.index(other)]:
                raise UpdateError(f"it and {other} do not commit themselves to the same seed")

    def opening(self, site: str) -> Opening:
        """The request to open the sum of all values that are there now, to one site."""
        heads = tuple(self.heads[member] for member in sorted(self.heads))
        return Opening(
            self.context, heads, {member: boxes[site] for member, boxes in self.boxes.items() if site in boxes}
        )

    def open(self, answers: Mapping[str, Shares]) -> Opened:
        """The sum itself.

        Args:
            answers: site to its shares; more than the threshold are needed where one of them is false.

        Raises:
            CannotOpenError: not with these answers.
        """
        plus, minus, false = self._seeds(answers)
        total = self.total.copy()
        add_masks(total, plus, minus)
        return Opened(total, tuple(sorted(false)))

    def can_open(self, answers: Mapping[str, Shares]) -> bool:
        """Whether `open` would open it; the work of the masks is not done."""
        try:
            self._seeds(answers)
        except CannotOpenError:
            return False
        return True

    def _seeds(self, answers: Mapping[str, Shares]) -> tuple[list[bytes], list[bytes], set[str]]:
        """Of the masks to add, and of those to take away, and who gave false shares of them."""
        members = sorted(self.heads)
        lost = [site for site in self.context.asked if site not in self.heads]
        false: set[str] = set()
        plus: list[bytes] = []
        minus: list[bytes] = []
        for member in members:
            own = {site: shares.own[member] for site, shares in answers.items() if member in shares.own}
            minus.append(self._seed(member, member, own, false))
            for other in lost:
                of_pair = (member, other)
                pair = {site: shares.pairs[of_pair] for site, shares in answers.items() if of_pair in shares.pairs}
                (plus if other < member else minus).append(self._seed(member, other, pair, false))
        return plus, minus, false

    def _seed(self, member: str, other: str, shares: Mapping[str, bytes], false: set[str]) -> bytes:
        """A member's seed of its shares, by holder, held against its commitment; who gave false ones goes into `false`.

        Raises:
            CannotOpenError: there are too few, or too many false ones among them.
        """
        threshold, commitment = self.roster.threshold, self.commitments[member][self.context.asked.index(other)]
        placed = {self.roster.place(site): share for site, share in sorted(shares.items())}
        if len(placed) < threshold:
            raise CannotOpenError(f"{len(placed)} sites have given their share; it takes {threshold} to open the sum")
        for group in _groups(sorted(placed), threshold):
            chosen = {place: placed[place] for place in group}
            seed = shamir.join(chosen)
            if seed is not None and commit(seed) == commitment:
                false |= {site for site, share in shares.items() if not self._fits(chosen, site, share)}
                return seed
        raise CannotOpenError(f"the shares of what {member} has masked its value with do not fit together")

    def _fits(self, chosen: Mapping[int, bytes], site: str, share: bytes) -> bool:
        """Whether a site's share is one of those that told a seed, or lies with them."""
        place = self.roster.place(site)
        return place in chosen or shamir.is_on(chosen, place, share)


def _groups(places: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """Groups of so many to try, the first ones first, then others at random; only one where there is only one."""
    yield places[:size]
    if len(places) > size:
        chance = random.Random(0)
        for _ in range(_MOST_GROUPS):
            yield chance.sample(places, size)
