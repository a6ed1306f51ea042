"""Hospitals that take part in secure aggregation, for tests: keys and rosters are real, values are at random."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from msfl_common.secure_aggregation.context import Context
from msfl_common.secure_aggregation.coordinator import MaskedSum
from msfl_common.secure_aggregation.ring import SUMS, UPDATES, Ring, Words, add
from msfl_common.secure_aggregation.roster import Entry, Roster, make_roster, sign_mask_key
from msfl_common.secure_aggregation.site import Hidden, MaskKeys, Opening, Shares, expect_opening

STUDY = "ms-lesions"
THRESHOLDS = {3: 2, 5: 3, 10: 6, 30: 16}
RINGS: Sequence[Ring] = (UPDATES, SUMS)


@dataclass(frozen=True)
class Hospitals:
    """A roster, and each site's secrets."""

    roster: Roster
    keys: dict[str, MaskKeys]

    def context(self, asked: Sequence[str] | None = None, request: str = "0" * 64) -> Context:
        """A sum of these sites, or of all."""
        return Context(roster=self.roster.digest, request=request, asked=tuple(asked or self.roster.names))

    def answer(self, opening: Opening, site: str) -> Shares:
        """What an honest site gives to an opening; it refuses as it would."""
        expect_opening(self.roster, opening, site, earlier=None)
        return self.keys[site].shares_for(opening)


@cache
def hospitals(num_sites: int) -> Hospitals:
    """So many, with the lowest threshold that holds."""
    names = [f"site-{number:02d}" for number in range(num_sites)]
    secrets = {name: (ec.generate_private_key(ec.SECP384R1()), X25519PrivateKey.generate()) for name in names}
    roster = make_roster(STUDY, [entry_of(name, *keys) for name, keys in secrets.items()], THRESHOLDS[num_sites], 2)
    keys = {
        name: MaskKeys(roster, name, mask_key, random.Random(name).randbytes(32), site_key)
        for name, (site_key, mask_key) in secrets.items()
    }
    return Hospitals(roster, keys)


def entry_of(name: str, site_key: ec.EllipticCurvePrivateKey, mask_key: X25519PrivateKey, study: str = STUDY) -> Entry:
    """A site's signed entry of a roster."""
    return sign_mask_key(site_key, study, name, mask_key.public_key().public_bytes_raw())


def values_of(sites: Sequence[str], ring: Ring, num_sites: int, length: int = 70) -> dict[str, Words]:
    """Each site's value."""
    return {
        site: ring.encode(1e3 * np.random.default_rng(number).normal(size=length), num_sites)
        for number, site in enumerate(sites)
    }


def plain_sum(values: Sequence[Words]) -> Words:
    """Their sum without any mask."""
    total = np.zeros_like(values[0])
    for value in values:
        add(total, value)
    return total


def hide_all(some: Hospitals, context: Context, ring: Ring, values: dict[str, Words]) -> dict[str, Hidden]:
    """What each of the sites in `values` sends."""
    return {site: some.keys[site].hide(context, ring, value) for site, value in values.items()}


def sum_of(some: Hospitals, context: Context, ring: Ring, hidden: dict[str, Hidden], length: int = 70) -> MaskedSum:
    """A sum that has taken these, in this order."""
    masked = MaskedSum(some.roster, context, ring, length)
    for site, one in hidden.items():
        masked.take(site, one)
    return masked
