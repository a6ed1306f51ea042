"""What site and coordinator hold against each other: a signed end of the site's ledger, countersigned with the time.

A site signs the number and the hash of its last line. By the chain of hashes that speaks for every line before, too.
The study's server signs what it saw, when it saw it, and the site keeps that: a site that writes its ledger anew
contradicts its receipts, and a coordinator that gave a receipt cannot deny that the ledger said so by then.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import Field

from msfl_common.config.base import Frozen, Name, Sha256
from msfl_common.errors import InputError
from msfl_common.trust.signatures import canonical, is_signed, key_issued_by, sign

HEAD_PURPOSE, RECEIPT_PURPOSE = "msfl ledger head 1", "msfl ledger receipt 1"
Signature = Annotated[str, Field(min_length=1, max_length=512)]
Number = Annotated[int, Field(ge=1, le=2**53)]


@dataclass(frozen=True)
class Signer:
    """A site that signs its lines."""

    site: str
    key: ec.EllipticCurvePrivateKey

    def sign_head(self, number: int, line_hash: str) -> str:
        """The signature under a line, and so under a ledger that ends with it."""
        return sign(self.key, HEAD_PURPOSE, _head(self.site, number, line_hash))

    @property
    def owner(self) -> Owner:
        """Whoever checks what this site has signed."""
        return Owner(self.site, self.key.public_key())


@dataclass(frozen=True)
class Owner:
    """A site whose signatures are checked."""

    site: str
    key: ec.EllipticCurvePublicKey

    def has_signed(self, number: int, line_hash: str, signature: str) -> bool:
        """Whether the site has signed a ledger that ends with this line."""
        return is_signed(self.key, HEAD_PURPOSE, _head(self.site, number, line_hash), signature)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the public key, 64 hexadecimal digits."""
        content = self.key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        return hashlib.sha256(content).hexdigest()


class SignedHead(Frozen):
    """Where a ledger ends, signed by its site; with each answer it goes to the coordinator, and nothing else does."""

    number: Number = Field(description="number of the last line")
    hash: Sha256 = Field(description="hash of the last line")
    signature: Signature = Field(description="the site's, under name, number and hash")


class Receipt(Frozen):
    """A head as the coordinator saw it, with the time by its clock."""

    study: Name
    site: Name
    number: Number
    hash: Sha256
    signature: Signature = Field(description="the site's, under the head")
    time: str = Field(max_length=32, description="UTC, ISO 8601")
    countersignature: Signature = Field(description="of the study's server, under all above")
    certificate: str = Field(max_length=8192, description="the server's, PEM, issued by the study's authority")

    @property
    def line(self) -> bytes:
        """How it is written down."""
        return canonical(self.model_dump())

    @property
    def when(self) -> datetime:
        """The coordinator's time.

        Raises:
            InputError: it is no time.
        """
        try:
            when = datetime.fromisoformat(self.time)
        except ValueError:
            raise InputError("its time is none") from None
        return when if when.tzinfo is not None else when.replace(tzinfo=UTC)


def countersign(
    key: ec.EllipticCurvePrivateKey, certificate: str, study: str, site: str, head: SignedHead, time: datetime
) -> Receipt:
    """The coordinator's word that it saw a head.

    Args:
        key: the server's.
        certificate: the server's, PEM.
        study: name of the study.
        site: whose head.
        head: what it signed.
        time: now.
    """
    seen = {"study": study, "site": site, **head.model_dump(), "time": time.astimezone(UTC).isoformat()}
    return Receipt(**seen, countersignature=sign(key, RECEIPT_PURPOSE, canonical(seen)), certificate=certificate)


def check_receipt(receipt: Receipt, authority: x509.Certificate, study: str, owner: Owner) -> None:
    """Whether a receipt is one: for this site and study, of a head that the site signed, by the study's server.

    Raises:
        InputError: what is wrong with it.
    """
    if (receipt.study, receipt.site) != (study, owner.site):
        raise InputError(f"it is for site {receipt.site} in study {receipt.study}")
    server = key_issued_by(authority, receipt.certificate.encode())
    seen = receipt.model_dump(exclude={"countersignature", "certificate"})
    if not is_signed(server, RECEIPT_PURPOSE, canonical(seen), receipt.countersignature):
        raise InputError("the study's server has not signed it")
    if not owner.has_signed(receipt.number, receipt.hash, receipt.signature):
        raise InputError(f"it is for a line {receipt.number} that this site has never signed")
    _ = receipt.when


def _head(site: str, number: int, line_hash: str) -> bytes:
    return canonical({"site": site, "number": number, "hash": line_hash})
