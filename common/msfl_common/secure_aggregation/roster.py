"""The roster: who takes part in secure aggregation, with which keys, and how many of them it takes to open a sum.

The coordinator hands it out, and so proves nothing with it. A site checks that each entry is signed by the key that is
named in it, and that its people have heard the same digest at the other hospitals, over the telephone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Annotated

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from pydantic import Field, model_validator

from msfl_common.config.base import Frozen, Name
from msfl_common.config.spelling import spelled
from msfl_common.trust.signatures import canonical, is_signed, sign

FEWEST_SITES, MOST_SITES = 3, 100
_PURPOSE = "msfl mask key 1"
_FIELD = 2**255 - 19  # of X25519, which reads a number from there on, or with bit 255 set, as a lower one

Hex32 = Annotated[str, spelled(r"[0-9a-f]{64}", "32 bytes as 64 hexadecimal digits")]


class Entry(Frozen):
    """A site of the roster."""

    site: Name = Field(description="name of the site")
    site_key: str = Field(max_length=400, description="its registered public key, in OpenSSH format")
    mask_key: Hex32 = Field(description="its public key for masks in this study, X25519")
    signature: str = Field(
        max_length=400, description="by its registered key, under the study, its name and its mask key"
    )


class Roster(Frozen):
    """All sites whose values are added up, in the order of their names."""

    study: Name = Field(description="name of the study")
    threshold: int = Field(description="how many sites it takes to open a sum")
    min_sites: int = Field(description="how many sites a sum that is opened has at least")
    sites: tuple[Entry, ...] = Field(min_length=FEWEST_SITES, max_length=MOST_SITES, description="the sites")

    @model_validator(mode="after")
    def _holds(self) -> Roster:
        names = [entry.site for entry in self.sites]
        if names != sorted(set(names)):
            raise ValueError("expected each site once, in the order of their names")
        if sharers(self.sites):
            raise ValueError("expected another key for each site, found one twice")
        for entry in self.sites:
            if fault := entry_fault(self.study, entry):
                raise ValueError(fault)
        if fault := threshold_fault(len(names), self.threshold, self.min_sites):
            raise ValueError(fault)
        return self

    @cached_property
    def digest(self) -> str:
        """SHA-256 of who takes part, with which keys and which thresholds; what people compare."""
        return hashlib.sha256(
            canonical(self.model_dump(mode="json", exclude={"sites": {"__all__": {"signature"}}}))
        ).hexdigest()

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The sites' names, in order."""
        return tuple(entry.site for entry in self.sites)

    @property
    def fewest_colluders(self) -> int:
        """With how many of the sites on its side a coordinator learns another one's own value.

        So many fill up a sum of one other site, or help two groups of honest ones to open a sum each: shown
        two sums of one request, with a site and without it, which differ by its value.
        """
        num_sites, fewest = len(self.sites), max(self.min_sites, self.threshold)
        two_views = 2 * self.threshold - num_sites if fewest < num_sites else num_sites - 1
        return min(fewest - 1, two_views)

    def entry(self, site: str) -> Entry:
        """A site's entry.

        Raises:
            KeyError: it is not in the roster.
        """
        return self.sites[self.place(site) - 1]

    def place(self, site: str) -> int:
        """Where a site stands, from 1 on: also where its shares are taken.

        Raises:
            KeyError: it is not in the roster.
        """
        try:
            return self.names.index(site) + 1
        except ValueError:
            raise KeyError(site) from None

    def site_key(self, site: str) -> ec.EllipticCurvePublicKey:
        """A site's registered key."""
        key = _public_key(self.entry(site))
        assert key is not None  # checked when the roster was read
        return key


def sign_mask_key(site_key: ec.EllipticCurvePrivateKey, study: str, site: str, mask_key: bytes) -> Entry:
    """A site's own entry; `mask_key` is its raw public X25519 key, 32 bytes."""
    public = site_key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    signature = sign(site_key, _PURPOSE, _content(study, site, mask_key.hex()))
    return Entry(site=site, site_key=public.decode(), mask_key=mask_key.hex(), signature=signature)


def make_roster(study: str, entries: Sequence[Entry], threshold: int, min_sites: int) -> Roster:
    """The roster of these sites.

    Raises:
        ValidationError: no roster can be of these.
    """
    ordered = tuple(sorted(entries, key=lambda entry: entry.site))
    return Roster(study=study, threshold=threshold, min_sites=min_sites, sites=ordered)


def entry_fault(study: str, entry: Entry) -> str | None:
    """Why an entry can stand in no roster of a study; None where it can."""
    if not _hides(entry.mask_key):
        return f"the mask key of {entry.site} is none that two sites can agree on a secret with"
    key = _public_key(entry)
    if key is None or not is_signed(key, _PURPOSE, _content(study, entry.site, entry.mask_key), entry.signature):
        return f"the mask key of {entry.site} is not signed by its registered key"
    return None


def sharers(entries: Iterable[Entry]) -> set[str]:
    """The sites that have a key which another one has."""
    holders: dict[object, set[str]] = {}
    for entry in entries:
        key = _public_key(entry)
        points = () if key is None else (key.public_numbers(),)  # its text may have a remark
        for one in (entry.mask_key, *points):
            holders.setdefault(one, set()).add(entry.site)
    return set().union(*(sites for sites in holders.values() if len(sites) > 1))


def threshold_fault(num_sites: int, threshold: int, min_sites: int) -> str | None:
    """Why a threshold cannot hold, with the one to take; None where it does.

    Two groups of sites without a member in common could each be shown another set of sites and open both, and the
    difference of two sums is a site's own value: so more than half must answer.
    """
    needed = num_sites // 2 + 1
    if not needed <= threshold <= num_sites:
        return f"threshold: {threshold} of {num_sites} sites opens a sum; it takes {needed} to {num_sites}"
    if not 2 <= min_sites <= num_sites:
        return f"min_sites: a sum of {min_sites} of {num_sites} sites; it takes 2 to {num_sites}"
    return None


def _public_key(entry: Entry) -> ec.EllipticCurvePublicKey | None:
    try:
        key = serialization.load_ssh_public_key(entry.site_key.encode())
    except Exception:  # cryptography raises several kinds; none tells more than this
        return None
    return key if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP384R1) else None


def _hides(mask_key: str) -> bool:
    """Whether it is spelled in the one way that there is, and tells no secret that anybody knows.

    Under a second spelling of another's key, a site that falls out would have that one's pairs opened.
    """
    raw = bytes.fromhex(mask_key)
    if int.from_bytes(raw, "little") >= _FIELD:
        return False
    try:
        X25519PrivateKey.from_private_bytes(bytes(32)).exchange(X25519PublicKey.from_public_bytes(raw))
    except ValueError:  # of small order: the secret would be 0 with every key
        return False
    return True


def _content(study: str, site: str, mask_key: str) -> bytes:
    return canonical({"study": study, "site": site, "mask_key": mask_key})
