"""A sum under masks on disk: which sites were asked, whose values are in it, and what it came to once it is open.

Whose values are in a sum is written down before any site is asked to open it: sites open a request once, so a run that
was cut off goes on with the same values, and asks nobody to train again.

`.sums/DIGEST/` in the folder of a stage holds, of one request:

    attempt.json   the sites that were asked, before any of them is
    fixed/         the sum under its masks, and what the sites have sent beside their values
    shares/        what each site has given to open it: after the study's last sum, a site has no keys to give it again
    total.bin      the sum itself
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from pydantic import Base64Bytes, ValidationError

from msfl_common.config.base import Frozen
from msfl_common.errors import InputError
from msfl_common.secure_aggregation.context import Context
from msfl_common.secure_aggregation.coordinator import MaskedSum
from msfl_common.secure_aggregation.ring import Ring, Words
from msfl_common.secure_aggregation.roster import Roster
from msfl_common.secure_aggregation.site import Head, Shares
from msfl_common.system.files import whole_folder, write_bytes, write_text
from msfl_server.results.summary import SiteFailure

FOLDER = ".sums"
_ATTEMPT, _FIXED, _SHARES, _TOTAL = "attempt.json", "fixed", "shares", "total.bin"
_RECORD, _MASKED = "sum.json", "masked.bin"  # in `fixed`


class _Member(Frozen):
    """What a site has sent beside its value; see `Hidden`."""

    payload: str
    commitments_sha256: str
    signature: str
    commitments: tuple[Base64Bytes, ...]
    boxes: dict[str, Base64Bytes]


class _Record(Frozen):
    """A sum whose values are fixed."""

    roster: Roster
    context: Context
    members: dict[str, _Member]
    failures: tuple[SiteFailure, ...]


class _Shares(Frozen):
    """See `Shares`; pairs in the order of their names."""

    own: dict[str, Base64Bytes]
    pairs: tuple[tuple[str, str, Base64Bytes], ...]
    damaged: tuple[str, ...]


class SumFolder:
    """What is kept of one request."""

    def __init__(self, out: Path, request: str) -> None:
        self._folder = out / FOLDER / request[:32]

    def attempt(self) -> Context | None:
        """The attempt that was begun last; None where none can be read."""
        with suppress(FileNotFoundError, ValidationError):
            return Context.model_validate_json((self._folder / _ATTEMPT).read_bytes())
        return None

    def begin(self, context: Context) -> None:
        """Write down an attempt, before anyone is asked."""
        write_text(self._folder / _ATTEMPT, context.model_dump_json(indent=1) + "\n")

    def fix(self, masked: MaskedSum, failures: Sequence[SiteFailure]) -> None:
        """Write down whose values are in a sum, and why others' are not, before anyone is asked to open it."""
        members = {
            site: _Member.model_construct(
                payload=head.payload,
                commitments_sha256=head.commitments,
                signature=head.signature,
                commitments=masked.commitments[site],
                boxes=dict(masked.boxes[site]),
            )
            for site, head in masked.heads.items()
        }
        record = _Record.model_construct(
            roster=masked.roster, context=masked.context, members=members, failures=tuple(failures)
        )
        with whole_folder(self._folder / _FIXED) as temporary:
            write_bytes(temporary / _MASKED, masked.total.astype("<u8").tobytes())
            write_text(temporary / _RECORD, record.model_dump_json(indent=1) + "\n")

    def fixed(self, ring: Ring, length: int) -> tuple[MaskedSum, tuple[SiteFailure, ...]] | None:
        """The sum whose values are fixed, and why others' are not in it; None before they are.

        Raises:
            InputError: it is damaged: nothing else may be opened in its place.
        """
        folder = self._folder / _FIXED
        if not folder.exists():
            return None
        try:
            record = _Record.model_validate_json((folder / _RECORD).read_bytes())
            masked = MaskedSum(record.roster, record.context, ring, length)
            masked.total = _words(folder / _MASKED, ring, length)
        except (OSError, ValueError):
            raise InputError(f"{folder}: damaged; restore it from a backup, as sites open no other sum") from None
        for site, member in record.members.items():
            masked.heads[site] = Head(site, member.payload, member.commitments_sha256, member.signature)
            masked.commitments[site], masked.boxes[site] = member.commitments, member.boxes
        return masked, record.failures

    def keep_shares(self, site: str, shares: Shares) -> None:
        """Write down what a site has given."""
        pairs = tuple((*pair, share) for pair, share in shares.pairs.items())
        kept = _Shares.model_construct(own=dict(shares.own), pairs=pairs, damaged=shares.damaged)
        write_text(self._folder / _SHARES / f"{site}.json", kept.model_dump_json() + "\n")

    def shares(self) -> dict[str, Shares]:
        """What sites have given; a file that cannot be read counts for none."""
        found: dict[str, Shares] = {}
        for path in sorted((self._folder / _SHARES).glob("*.json")):
            with suppress(OSError, ValidationError):
                kept = _Shares.model_validate_json(path.read_bytes())
                pairs = {(member, lost): share for member, lost, share in kept.pairs}
                found[path.stem] = Shares(kept.own, pairs, kept.damaged)
        return found

    def keep(self, total: Words) -> None:
        """Write down what the fixed sum came to: a site that has ended the study does not open it again."""
        write_bytes(self._folder / _TOTAL, total.astype("<u8").tobytes())

    def total(self, ring: Ring, length: int) -> Words | None:
        """What the fixed sum came to; None where it is not open, or cannot be read: it is opened again then."""
        with suppress(OSError, ValueError):
            return _words(self._folder / _TOTAL, ring, length)
        return None


def drop_sums(out: Path) -> None:
    """Forget the sums of a round: its checkpoint is there."""
    shutil.rmtree(out / FOLDER, ignore_errors=True)


def _words(path: Path, ring: Ring, length: int) -> Words:
    return np.fromfile(path, "<u8").astype(np.uint64).reshape(ring.limbs, length)
