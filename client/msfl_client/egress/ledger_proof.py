"""What a ledger proves, checked with what lies outside of it: the site's public key and the coordinator's authority."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from msfl_client.egress.ledger import LEDGER_FILE, read
from msfl_client.egress.ledger_line import Line
from msfl_client.egress.ledger_receipts import Countersigned, Receipts
from msfl_client.egress.ledger_sums import SumsCheck
from msfl_client.site.keys import has_passphrase, load_key, public_key_file
from msfl_client.site.kit_approval import approved_kit
from msfl_common.config.site import SiteConfig
from msfl_common.errors import InputError
from msfl_common.system.reading import MOST_KEY, read_bounded
from msfl_common.trust.kit import Kit, fingerprint
from msfl_common.trust.receipts import Owner


@dataclass
class Proof:
    """A ledger, and what it is held against.

    Attributes:
        ledger: the file.
        owner: the site with its public key; None where it has no key.
        kit: the joining kit; None where there is none.
        authority: the kit's.
        head_stays: whether the policy keeps the ledger's end here, so that nobody signs it.
        num_lines: lines read so far.
        num_unsigned: of them, those without a signature; they are the first.
        end: the last of them.
        countersigned: what the coordinator has signed; set when all lines are read.
        sums: the masked sums in it.
    """

    ledger: Path
    owner: Owner | None
    kit: Kit | None
    authority: x509.Certificate | None
    head_stays: bool = False
    num_lines: int = 0
    num_unsigned: int = 0
    end: Line | None = None
    countersigned: Countersigned = field(default_factory=Countersigned)
    sums: SumsCheck = field(init=False)

    def __post_init__(self) -> None:
        self.sums = SumsCheck(self.ledger)

    @classmethod
    def of(cls, site: SiteConfig) -> Proof:
        """What is there of a site.

        Raises:
            InputError: its key or kit are unsound.
        """
        approved = approved_kit(site)
        kit, authority = (approved.kit, approved.authority) if approved else (None, None)
        head_stays = "ledger_head" not in site.policy.allow
        return cls(site.state / LEDGER_FILE, _owner_of(site), kit, authority, head_stays)

    def lines(self) -> Iterator[Line]:
        """The lines, each checked before it is given out, then the end and the coordinator's signatures.

        Raises:
            InputError: see `ledger.read` and `SumsCheck.line`; or a receipt that the study's server has not signed.
        """
        self.num_lines = self.num_unsigned = 0
        self.sums = SumsCheck(self.ledger)
        for line in read(self.ledger, self.owner):
            self.num_lines = line.number
            self.num_unsigned += not line.signature
            self.end = line
            self.sums.line(line)
            yield line
        if self.owner and self.kit and self.authority:
            found = Receipts.of(self.ledger).countersigned(self.authority, self.kit.study, self.owner)
            self.countersigned = found

    @property
    def sentences(self) -> list[str]:
        """What was found, once all lines are read: the chain, the signatures, the receipts, the masked sums."""
        if self.end is None:
            return ["The ledger is empty: nothing has left this site."]
        end = f"the last, of {self.end.time}, has the hash {self.end.hash}"
        touched = f"{self.num_lines} lines, none touched; {end}"
        return [touched, self._signatures(), self._receipts(), *self.sums.sentences]

    def _signatures(self) -> str:
        signed = self.num_lines - self.num_unsigned
        if self.owner is None:
            lacks = "signatures were not checked: site.key.pub is not there" if signed else "this site has no key"
            return f"Signed: {signed or 'none'}; {lacks}"
        early = f"; the first {self.num_unsigned} are from before lines were signed" if self.num_unsigned else ""
        return f"Signed: {signed} of {self.num_lines} lines, by the key {self.owner.fingerprint}{early}"

    def _receipts(self) -> str:
        newest, others = self.countersigned.newest, self.countersigned.others
        earlier = f"; {others} receipts are of earlier studies, to be checked with their kits" if others else ""
        if newest is None:
            why = "the coordinator has given no receipt yet" if self.kit else "there is no joining kit to check with"
            if self.head_stays:
                why = "the coordinator gives receipts once `allow:` of the policy has ledger_head; add it"
            return f"Countersigned: none; {why}{earlier}"
        waiting = self.num_lines - newest.number
        lines = "1 later line has" if waiting == 1 else f"{waiting} later lines have"
        rest = f"; {lines} none yet, as it comes with the coordinator's next request" if waiting > 0 else ""
        return f"Countersigned: up to line {newest.number}, by the coordinator at {newest.time[:19]} UTC{rest}{earlier}"

    @property
    def authority_sha256(self) -> str:
        """Fingerprint of the coordinator's authority; empty where there is no kit."""
        return fingerprint(self.authority) if self.authority else ""


def _owner_of(site: SiteConfig) -> Owner | None:
    public = public_key_file(site.key)
    if site.key.exists() and os.access(site.key, os.R_OK) and not has_passphrase(site.key):
        return Owner(site.name, load_key(site.key).public_key())
    if not public.exists():
        return None
    try:
        key = serialization.load_ssh_public_key(read_bounded(public, MOST_KEY))
    except (OSError, ValueError, InputError):
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise InputError(f"{public}: cannot be read, or holds no public key of a site; restore it from a backup")
    return Owner(site.name, key)
