"""A line of the ledger: what it says of a message, and how it is chained to the line before and signed."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from msfl_common.errors import InputError
from msfl_common.trust.receipts import Owner, SignedHead, Signer
from msfl_common.trust.signatures import canonical

# Lines of format 1 have no signature, and none of the fields with a default below; those of format 2, no `in_sum`.
FORMAT = 3


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class InSum(_Frozen):
    """Of which masked sum a message is a part; of a roster that was taken or confirmed, that alone.

    Attributes:
        roster: its digest.
        sites: who was asked for a value; of shares, whose values are in the sum that they open; of a roster, who is in
            it.
        least: fewest sites of a sum that is opened.
        context: digest of the sum: of roster, request, who was asked, and attempt.
        request: digest of the request whose values are added up.
        digest: SHA-256 of the value under its masks; of shares, digest of the opening: of the sum and its sites.
    """

    roster: str
    sites: tuple[str, ...]
    least: int
    context: str = ""
    request: str = ""
    digest: str = ""


class Entry(_Frozen):
    """One outgoing message: what it was, never what it held.

    Attributes:
        min_patients: smallest number of patients behind any figure in it; older lines do not say.
        code: of a refusal, its code.
        late: of a refusal that left while nothing could be written, when it left (UTC, ISO 8601); else empty.
        policy: SHA-256 of the site's policy at that time.
        head_sent: this line's number, hash and signature go to the coordinator with the message.
        in_sum: of what leaves in a masked sum alone, or opens one; else None.
    """

    kind: str
    study: str
    round: int
    arrays: dict[str, list[int]]
    numbers: list[str]
    num_bytes: int
    sha256: str
    num_cases: int
    version: str
    min_patients: int = 0
    code: str = ""
    late: str = ""
    policy: str = ""
    head_sent: bool = False
    in_sum: InSum | None = None


class Head(_Frozen):
    """Where a ledger ends: the number and the hash of its last line."""

    number: int = 0
    hash: str = "0" * 64


class Line(Entry):
    """An entry with its number, its time (UTC, ISO 8601) and its place in the chain.

    Attributes:
        receipt: SHA-256 of the newest receipt of the coordinator's that was there; empty while there is none.
        signature: the site's, under its name, this line's number and its hash; empty where the site has no key.
    """

    number: int
    time: str
    previous: str
    hash: str
    format: int = 1
    receipt: str = ""
    signature: str = ""

    @property
    def head(self) -> Head:
        """The head of a ledger that ends here."""
        return Head(number=self.number, hash=self.hash)

    @property
    def head_before(self) -> Head:
        """The head that the ledger had before this line."""
        return Head(number=self.number - 1, hash=self.previous)

    @property
    def signed_head(self) -> SignedHead:
        """What the coordinator is told of a signed line."""
        return SignedHead(number=self.number, hash=self.hash, signature=self.signature)

    @property
    def raw(self) -> bytes:
        """How it is written down: with the fields that it was read, or made, with."""
        return canonical(self.model_dump(exclude_unset=True))

    def is_signed_by(self, owner: Owner) -> bool:
        """Whether the site has signed it."""
        return owner.has_signed(self.number, self.hash, self.signature)


def make_line(entry: Entry, before: Head, receipt: str, signer: Signer | None) -> Line:
    """The line that comes after `before`."""
    body = {
        **entry.model_dump(),
        "number": before.number + 1,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "previous": before.hash,
        "format": FORMAT,
        "receipt": receipt,
    }
    line_hash = hash_of(body)
    signature = signer.sign_head(before.number + 1, line_hash) if signer else ""
    return Line.model_validate({**body, "hash": line_hash, "signature": signature})


def parse_line(raw: bytes, path: Path, which: str) -> Line:
    """A line as it was written.

    Raises:
        InputError: it is none, or not what its hash says; `path` and `which` say where.
    """
    try:
        line = Line.model_validate_json(raw)
    except ValidationError:
        raise InputError(f"{path}: {which} is not a ledger line") from None
    if hash_of(line.model_dump(exclude={"hash", "signature"}, exclude_unset=True)) != line.hash or line.raw != raw:
        raise InputError(f"{path}: {which} was edited")
    return line


def hash_of(body: dict[str, Any]) -> str:
    """SHA-256 of a line without hash and signature."""
    return hashlib.sha256(canonical(body)).hexdigest()
