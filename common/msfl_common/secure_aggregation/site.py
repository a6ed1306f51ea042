"""A site's half: hide a value, hand out shares of its masks, and give those that it keeps so that a sum is opened."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from msfl_common.errors import UpdateError
from msfl_common.secure_aggregation.context import Context
from msfl_common.secure_aggregation.masks import add_masks
from msfl_common.secure_aggregation.ring import Ring, Words
from msfl_common.secure_aggregation.roster import Roster
from msfl_common.secure_aggregation.shamir import SHARE_BYTES, split
from msfl_common.trust.signatures import canonical, is_signed, sign

_PURPOSE = "msfl masked value 1"
_ONE_MESSAGE = bytes(12)  # the nonce of a box, whose key serves it alone


@dataclass(frozen=True)
class Head:
    """What a site signs of the value that it has hidden; it shows the others that this site is in a sum.

    Attributes:
        site: whose value.
        payload: SHA-256 of it, as it was sent.
        commitments: SHA-256 of all its commitments.
        signature: by its registered key, under these and the context.
    """

    site: str
    payload: str
    commitments: str
    signature: str

    def is_signed(self, roster: Roster, context: Context) -> bool:
        """Whether the site of this name in the roster has signed it, for this sum."""
        return self.site in context.asked and is_signed(
            roster.site_key(self.site), _PURPOSE, _content(context, self.payload, self.commitments), self.signature
        )


@dataclass(frozen=True)
class Hidden:
    """What a site sends for one sum.

    Attributes:
        head: see there.
        payload: the value under its masks, as `Ring.pack` writes it.
        commitments: for each site that was asked, SHA-256 of the seed that it shares with it; at its own place, of its
            own seed.
        boxes: by name of the other sites, the sealed shares that each of them keeps.
    """

    head: Head
    payload: bytes = field(repr=False)
    commitments: tuple[bytes, ...] = field(repr=False)
    boxes: Mapping[str, bytes] = field(repr=False)


@dataclass(frozen=True)
class Opening:
    """The coordinator's request to open a sum, to one site: the sum's context, whose values it has, and their boxes.

    Attributes:
        heads: of the sites whose values are in the sum, in order.
        boxes: by name, what each of them has sealed for the site that is asked.
    """

    context: Context
    heads: tuple[Head, ...]
    boxes: Mapping[str, bytes]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of which sum is opened, with whose values."""
        return hashlib.sha256(canonical({"context": self.context.digest.hex(), "members": self.members})).hexdigest()

    @property
    def members(self) -> tuple[str, ...]:
        """The sites whose values are in the sum."""
        return tuple(head.site for head in self.heads)

    @property
    def lost(self) -> tuple[str, ...]:
        """The sites that were asked and whose values are not in it."""
        return tuple(site for site in self.context.asked if site not in self.members)


@dataclass(frozen=True)
class Shares:
    """A site's answer to an opening.

    Attributes:
        own: by member, the share of its own seed.
        pairs: by member and lost site, the share of the seed that the two share.
        damaged: members whose box could not be opened.
    """

    own: Mapping[str, bytes]
    pairs: Mapping[tuple[str, str], bytes]
    damaged: tuple[str, ...] = ()


@dataclass(frozen=True)
class MaskKeys:
    """A site's secrets for one roster.

    Attributes:
        roster: who takes part.
        site: this site's name.
        mask_key: private key of the public one in the roster.
        secret: 32 random bytes that never leave.
        site_key: its registered key.

    Raises:
        UpdateError: the site stands in the roster with other keys, or not at all.
    """

    roster: Roster
    site: str
    mask_key: X25519PrivateKey = field(repr=False)
    secret: bytes = field(repr=False)
    site_key: ec.EllipticCurvePrivateKey = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) != 32:
            raise UpdateError(f"expected a secret of 32 bytes, found {len(self.secret)}")
        mask_key = self.mask_key.public_key().public_bytes_raw().hex()
        mine = self.roster.entry(self.site) if self.site in self.roster.names else None
        if mine is None or mine.mask_key != mask_key or self.roster.site_key(self.site) != self.site_key.public_key():
            raise UpdateError("the roster does not have this site with its own keys")

    def hide(self, context: Context, ring: Ring, value: Words) -> Hidden:
        """A value under its masks; the same context and value give the same payload, commitments and boxes.

        The caller has checked the context (see `expect_context`), and that this context has hidden no other value: the
        digest of each context, with that of ring and value, is on disk before anything leaves. Where it cannot be
        written, nothing leaves.
        """
        own, pairs = self._own_seed(context), self._pair_seeds(context)
        masked, place = value.copy(), self.roster.place(self.site)
        before = [seed for site, seed in pairs.items() if self.roster.place(site) < place]
        after = [seed for site, seed in pairs.items() if self.roster.place(site) > place]
        add_masks(masked, [own, *after], before)
        payload = ring.pack(masked)
        seeds = [own if site == self.site else pairs[site] for site in context.asked]
        commitments = tuple(commit(seed) for seed in seeds)
        digests = hashlib.sha256(payload).hexdigest(), hashlib.sha256(b"".join(commitments)).hexdigest()
        head = Head(self.site, *digests, sign(self.site_key, _PURPOSE, _content(context, *digests)))
        return Hidden(head, payload, commitments, self._boxes(context, seeds))

    def _boxes(self, context: Context, seeds: Sequence[bytes]) -> dict[str, bytes]:
        """For each other site that was asked: its shares of this site's seeds, in the order of the asked, sealed."""
        holders = {site: self.roster.place(site) for site in context.asked}
        shares = [
            split(
                seed,
                self.roster.threshold,
                list(holders.values()),
                _derive(self.secret, b"shares", context, other.encode()),
            )
            for other, seed in zip(context.asked, seeds, strict=True)
        ]
        return {
            site: self._cipher(context, sender=self.site, receiver=site).encrypt(
                _ONE_MESSAGE, b"".join(share[place] for share in shares), context.digest
            )
            for site, place in holders.items()
            if site != self.site
        }

    def shares_for(self, opening: Opening) -> Shares:
        """What this site gives so that a sum is opened: shares of what masks it, never a seed.

        The caller has checked the opening (see `expect_opening`), and has on disk, by `context.request`, its digest
        before anything leaves. Where it cannot be written, nothing leaves.
        """
        context, own, pairs, damaged = opening.context, {}, {}, []
        places = {site: number for number, site in enumerate(context.asked)}
        for member in opening.members:
            shares = self._kept(context, member, opening.boxes.get(member, b""))
            if shares is None:
                damaged.append(member)
                continue
            own[member] = shares[places[member]]
            pairs.update({(member, lost): shares[places[lost]] for lost in opening.lost})
        return Shares(own, pairs, tuple(damaged))

    def _kept(self, context: Context, member: str, box: bytes) -> list[bytes] | None:
        """This site's shares of a member's seeds, in the order of the asked; None if its box holds no such thing."""
        if member == self.site:
            seeds = self._pair_seeds(context) | {self.site: self._own_seed(context)}
            place = self.roster.place(self.site)
            return [
                split(
                    seeds[other],
                    self.roster.threshold,
                    [place],
                    _derive(self.secret, b"shares", context, other.encode()),
                )[place]
                for other in context.asked
            ]
        try:
            content = self._cipher(context, sender=member, receiver=self.site).decrypt(
                _ONE_MESSAGE, box, context.digest
            )
        except InvalidTag:
            return None
        if len(content) != SHARE_BYTES * len(context.asked):
            return None
        return [content[start : start + SHARE_BYTES] for start in range(0, len(content), SHARE_BYTES)]

    def _own_seed(self, context: Context) -> bytes:
        return _derive(self.secret, b"own mask", context)

    def _pair_seeds(self, context: Context) -> dict[str, bytes]:
        return {
            site: _derive(self._agreed[site], b"pair mask", context, canonical({"pair": sorted((self.site, site))}))
            for site in context.asked
            if site != self.site
        }

    def _cipher(self, context: Context, sender: str, receiver: str) -> ChaCha20Poly1305:
        other = receiver if sender == self.site else sender
        direction = canonical({"from": sender, "to": receiver})
        return ChaCha20Poly1305(_derive(self._agreed[other], b"box", context, direction))

    @cached_property
    def _agreed(self) -> Mapping[str, bytes]:
        """By name of each other site, the secret that the two, and nobody else, can work out."""
        public = {one.site: bytes.fromhex(one.mask_key) for one in self.roster.sites if one.site != self.site}
        return {site: self.mask_key.exchange(X25519PublicKey.from_public_bytes(key)) for site, key in public.items()}


def expect_context(roster: Roster, context: Context, site: str) -> None:
    """Check that a sum is one that this site takes part in.

    Raises:
        UpdateError: it is of another roster, of strangers, of fewer sites than may be opened, or not of this site.
    """
    if context.roster != roster.digest:
        raise UpdateError("the sum is of another roster than the one that was confirmed here")
    if strangers := [name for name in context.asked if name not in roster.names]:
        raise UpdateError(f"the sum is to have sites that are not in the roster: {', '.join(strangers)}")
    if site not in context.asked:
        raise UpdateError("the sum is not one of this site's")
    fewest = max(roster.min_sites, roster.threshold)
    if len(context.asked) < fewest:
        raise UpdateError(f"the sum is of {len(context.asked)} sites; {fewest} are needed")


def expect_opening(roster: Roster, opening: Opening, site: str, earlier: str | None) -> None:
    """Check that a sum may be opened: enough sites are in it, and each of them has signed that it is.

    A request is opened once, whatever was attempted: two of its sums of other members differ by a site's own value.

    Args:
        roster: the one that was confirmed here.
        opening: what is asked.
        site: who is asked.
        earlier: digest of the opening that this site has answered of the same `context.request`, on disk; None if none.

    Raises:
        UpdateError: it may not.
    """
    expect_context(roster, opening.context, site)
    if earlier not in (None, opening.digest):
        raise UpdateError("this request was opened already, with other members or in another attempt")
    members, fewest = opening.members, max(roster.min_sites, roster.threshold)
    if list(members) != sorted(set(members)):
        raise UpdateError("a site stands twice in the sum, or the sites out of order")
    if len(members) < fewest:
        raise UpdateError(f"the sum has {len(members)} sites; {fewest} are needed")
    for head in opening.heads:
        if not head.is_signed(roster, opening.context):
            raise UpdateError(f"{head.site} has not signed that it is in this sum")


def commit(seed: bytes) -> bytes:
    """What a site shows of a seed before it is opened."""
    return hashlib.sha256(b"msfl mask seed 1\0" + seed).digest()


def _derive(secret: bytes, purpose: bytes, context: Context, more: bytes = b"") -> bytes:
    info = b"msfl " + purpose + b"\0" + context.digest + more
    return HKDF(SHA256(), 32, salt=None, info=info).derive(secret)


def _content(context: Context, payload: str, commitments: str) -> bytes:
    return canonical({"context": context.digest.hex(), "payload": payload, "commitments": commitments})
