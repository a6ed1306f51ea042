"""The coordinator's receipts, `ledger.receipts`: what it has seen of this ledger, and when; JSON lines.

Each line of the ledger names the newest receipt that was there when it was written, so receipts cannot be taken away
unnoticed either. The newest messages have none yet: a receipt comes with the coordinator's next request.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

from cryptography import x509
from pydantic import ValidationError

from msfl_client.egress.ledger_line import Line, parse_line
from msfl_client.egress.tail import last_line
from msfl_common.errors import InputError
from msfl_common.trust.receipts import Owner, Receipt, check_receipt

CLOCKS_APART = timedelta(minutes=10)  # of site and coordinator, at most; Flower's own limit is less


@dataclass(frozen=True)
class Countersigned:
    """What the receipts of a ledger show.

    Attributes:
        number: receipts of this study.
        newest: the last of them.
        others: receipts of earlier studies, with another authority; those are checked with that study's kit.
    """

    number: int = 0
    newest: Receipt | None = None
    others: int = 0


@dataclass(frozen=True)
class Receipts:
    """The receipts' file."""

    path: Path

    @classmethod
    def of(cls, ledger: Path) -> Receipts:
        """Those of a ledger."""
        return cls(ledger.with_suffix(".receipts"))

    def newest_sha256(self) -> str:
        """SHA-256 of the newest receipt's line; empty while there is none."""
        raw = self._newest()
        return hashlib.sha256(raw).hexdigest() if raw else ""

    def read(self) -> Iterator[Receipt]:
        """All receipts in their order; one that a crash cut short does not count, it comes again.

        Raises:
            InputError: a line is none.
        """
        for number, raw in enumerate(self._lines(), start=1):
            yield self._parse(raw, f"line {number}")

    def checker(self, owner: Owner | None) -> Checker:
        """What holds a ledger against its receipts, line by line.

        Raises:
            InputError: a receipt is none; with `owner`, for a line that this site has never signed.
        """
        found = list(self.read())
        for receipt in found:
            if owner is not None and not owner.has_signed(receipt.number, receipt.hash, receipt.signature):
                raise InputError(
                    f"{self.path}: the receipt for line {receipt.number} was forged: no line of this site's"
                )
        names = {hashlib.sha256(receipt.line).hexdigest(): receipt.number for receipt in found}
        return Checker(self.path, names, {receipt.number: receipt for receipt in found})

    def countersigned(self, authority: x509.Certificate, study: str, owner: Owner) -> Countersigned:
        """Check the coordinator's signatures.

        Raises:
            InputError: one is not by the study's server.
        """
        found = list(self.read())
        ours = [receipt for receipt in found if receipt.study == study]
        for receipt in ours:
            try:
                check_receipt(receipt, authority, study, owner)
            except InputError as error:
                raise InputError(f"{self.path}: the receipt for line {receipt.number} does not hold: {error}") from None
        return Countersigned(len(ours), ours[-1] if ours else None, len(found) - len(ours))

    def keep(self, receipt: Receipt, ledger: Path, now: datetime | None = None) -> None:
        """Keep a receipt, once `check_receipt` has passed it; one that is there already is not kept again.

        A receipt for a line that the ledger holds otherwise, or no longer, is kept: it proves that.

        Raises:
            InputError: it is not kept, because it cannot be true or the newest one kept was edited; or it is kept,
                and contradicts the ledger.
        """
        newest = self._newest()
        if newest and receipt.number <= self._parse(newest, "the last line").number:
            return
        with ledger.open("rb") if ledger.exists() else Path(os.devnull).open("rb") as stream:
            raw = next(islice(stream, receipt.number - 1, None), b"")
        line = parse_line(raw[:-1], ledger, f"line {receipt.number}") if raw.endswith(b"\n") else None
        if line is None and not (ledger.exists() and ledger.stat().st_size):
            raise InputError(
                f"the coordinator holds line {receipt.number} of a ledger that is not here; if the state folder is "
                "new, keep the old one; else somebody removed the ledger"
            )
        if receipt.when > (now or datetime.now(UTC)) + CLOCKS_APART:
            raise InputError("it is dated in the future: the coordinator's clock is wrong, or it forges")
        if line is not None and receipt.when < datetime.fromisoformat(line.time) - CLOCKS_APART:
            raise InputError(f"it is dated before line {line.number} was written")
        self._write(receipt)
        if line is None or line.hash != receipt.hash:
            raise InputError(
                f"{ledger}: the coordinator has a line {receipt.number}, signed by this site, that is not here: "
                "the ledger was set back or written anew; it does not verify any more"
            )

    def is_ahead_of(self, ledger: Path) -> bool:
        """Whether the coordinator has signed a line that the ledger does not end with, or does not come to.

        Raises:
            InputError: the newest receipt, or the ledger's last line, was edited.
        """
        newest = self._newest()
        if not newest:
            return False
        receipt, raw = self._parse(newest, "the last line"), b""
        if ledger.exists():
            with ledger.open("rb") as stream:
                raw, _ = last_line(stream)
        if not raw:
            return True
        last = parse_line(raw, ledger, "the last line")
        return receipt.number > last.number or (receipt.number == last.number and receipt.hash != last.hash)

    def _parse(self, raw: bytes, which: str) -> Receipt:
        try:
            receipt = Receipt.model_validate_json(raw)
        except ValidationError:
            receipt = None
        if receipt is None or receipt.line != raw:
            raise InputError(f"{self.path}: {which} is not a receipt, or was edited")
        return receipt

    def _write(self, receipt: Receipt) -> None:
        with self.path.open("a+b", buffering=0) as stream:
            _, end = last_line(stream)
            stream.truncate(end)
            stream.write(receipt.line + b"\n")
            os.fsync(stream.fileno())

    def _newest(self) -> bytes:
        if not self.path.exists():
            return b""
        with self.path.open("rb") as stream:
            return last_line(stream)[0]

    def _lines(self) -> list[bytes]:
        return self.path.read_bytes().split(b"\n")[:-1] if self.path.exists() else []


@dataclass
class Checker:
    """Receipts against lines.

    Attributes:
        path: of the receipts.
        names: SHA-256 of each receipt to the number of its line.
        open: receipts by the number of their line, less those that have met it.
    """

    path: Path
    names: dict[str, int]
    open: dict[int, Receipt]

    def line(self, line: Line) -> None:
        """The next line.

        Raises:
            InputError: it names a receipt that is gone, or a receipt says otherwise.
        """
        if line.receipt and line.receipt not in self.names:
            raise InputError(f"{self.path}: the receipt that line {line.number} names was removed or changed")
        if line.receipt and (ahead := self.names[line.receipt]) >= line.number:
            raise InputError(
                f"{self.path}: when line {line.number} was written, the coordinator had signed line {ahead}; the "
                "ledger was set back to before that"
            )
        receipt = self.open.pop(line.number, None)
        if receipt is not None and receipt.hash != line.hash:
            raise InputError(
                f"{self.path}: line {line.number} of the ledger is not the one that the coordinator signed on "
                f"{receipt.time}; the ledger was written anew"
            )

    def end(self) -> None:
        """No line follows.

        Raises:
            InputError: there is a receipt for a line that is not there.
        """
        if self.open:
            receipt = self.open[max(self.open)]
            raise InputError(
                f"{self.path}: the coordinator signed line {receipt.number} on {receipt.time}, and the ledger ends "
                "before it; its end was removed"
            )
