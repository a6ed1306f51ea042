"""What the coordinator has seen of the sites' ledgers: `run/ledger_heads.jsonl`, lines that are only ever added.

With each answer a site sends the signed end of its ledger. It is written down here, and only then countersigned, so
whatever a site holds a receipt for is on this disk, too. An end that comes before one that was seen, or differs from
it, says that the site's ledger was set back or written anew; that is written down with the site's name.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import ValidationError

from msfl_common.config.base import Frozen, Name, Sha256
from msfl_common.errors import InputError
from msfl_common.system.reading import MOST_KEY, read_bounded
from msfl_common.trust.receipts import Owner, Receipt, SignedHead, countersign
from msfl_common.trust.signatures import canonical

HEADS_FILE = "ledger_heads.jsonl"
Verdict = Literal["follows", "set back", "another line", "new key"]
MEANINGS: dict[Verdict, str] = {
    "follows": "nothing is missing",
    "set back": "it ended before a line that had been seen: it was cut, begun anew, or restored from a backup",
    "another line": "a line that had been seen has other content: the ledger was written anew",
    "new key": "the first with another key of the site's",
}

log = logging.getLogger(__name__)


class SeenHead(Frozen):
    """A line of the file: a head, when it was seen, and how it goes with those before."""

    site: Name
    key: Sha256
    receipt: Receipt
    verdict: Verdict

    @property
    def head(self) -> SignedHead:
        """What the site had signed."""
        receipt = self.receipt
        return SignedHead(number=receipt.number, hash=receipt.hash, signature=receipt.signature)


@dataclass
class Notary:
    """Countersigns the ends of the sites' ledgers.

    Attributes:
        file: where it writes down what it has seen.
        study: name of the study.
        key: the server's.
        certificate: the server's, PEM.
        public_keys: folder of NAME.pub, the sites' keys.
    """

    file: Path
    study: str
    key: ec.EllipticCurvePrivateKey
    certificate: str
    public_keys: Path
    _last: dict[str, SeenHead] = field(default_factory=dict)
    _hashes: dict[tuple[str, str], dict[int, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Read what was seen before."""
        for seen in read_heads(self.file):
            self._remember(seen)

    def note(self, site: str, head: SignedHead | None) -> None:
        """Write down what came with an answer of a site; nothing of it may end a round."""
        try:
            self._note(site, head)
        except (InputError, OSError) as error:
            log.warning("%s: the end of its ledger is not countersigned: %s", site, error)

    def receipt(self, site: str) -> Receipt | None:
        """The newest receipt of a site, for its next request."""
        seen = self._last.get(site)
        return seen.receipt if seen else None

    def _note(self, site: str, head: SignedHead | None) -> None:
        before = self._last.get(site)
        if head is None:
            if before is not None:
                raise InputError("it sent none, though it did before")
            return
        owner = Owner(site, _read_key(self.public_keys / f"{site}.pub"))
        if not owner.has_signed(head.number, head.hash, head.signature):
            raise InputError("it is not signed by the site's key")
        known = self._hashes.get((site, owner.fingerprint), {})
        if known.get(head.number) == head.hash and before is not None and before.receipt.number == head.number:
            return  # an answer that came twice
        verdict = _verdict(before, owner.fingerprint, known, head)
        receipt = countersign(self.key, self.certificate, self.study, site, head, datetime.now(UTC))
        seen = SeenHead(site=site, key=owner.fingerprint, receipt=receipt, verdict=verdict)
        self._write(seen)
        self._remember(seen)
        if verdict != "follows":
            log.warning("%s: line %d of its ledger: %s", site, head.number, MEANINGS[verdict])

    def _write(self, seen: SeenHead) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a+b", buffering=0) as stream:
            content = stream.read() if stream.seek(max(0, stream.seek(0, os.SEEK_END) - 1)) else b"\n"
            start = b"" if content == b"\n" else b"\n"  # behind a line that a crash cut short
            stream.write(start + canonical(seen.model_dump()) + b"\n")
            os.fsync(stream.fileno())

    def _remember(self, seen: SeenHead) -> None:
        known = self._hashes.setdefault((seen.site, seen.key), {})
        if seen.verdict != "follows":
            known.clear()  # a ledger that was begun anew is followed from here on
        known[seen.receipt.number] = seen.receipt.hash
        self._last[seen.site] = seen


def read_heads(file: Path) -> Iterator[SeenHead]:
    """What was seen, in its order; a line that a crash cut short is left out.

    Raises:
        InputError: a line was edited.
    """
    lines = file.read_bytes().split(b"\n") if file.exists() else []
    for number, raw in enumerate(lines, start=1):
        try:
            seen = SeenHead.model_validate_json(raw)
        except ValidationError:
            if raw and raw.endswith(b"}"):
                raise InputError(f"{file}: line {number} was edited; restore it from a backup") from None
            continue
        yield seen


def compare(file: Path) -> tuple[dict[str, SeenHead], list[SeenHead]]:
    """The newest head of each site, and each time that a ledger did not follow what was seen before.

    Raises:
        InputError: as `read_heads`.
    """
    newest, broken = {}, []
    for seen in read_heads(file):
        newest[seen.site] = seen
        if seen.verdict != "follows":
            broken.append(seen)
    return newest, broken


def _verdict(before: SeenHead | None, key: str, known: dict[int, str], head: SignedHead) -> Verdict:
    if before is None:
        return "follows"
    if before.key != key:
        return "new key"
    if known.get(head.number, head.hash) != head.hash:
        return "another line"
    return "follows" if head.number > before.receipt.number else "set back"


def _read_key(path: Path) -> ec.EllipticCurvePublicKey:
    try:
        key = serialization.load_ssh_public_key(read_bounded(path, MOST_KEY))
    except Exception:  # cryptography raises several kinds; none tells more than this
        raise InputError(f"{path}: is not there, or holds no public key") from None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise InputError(f"{path}: holds a key of another kind")
    return key
