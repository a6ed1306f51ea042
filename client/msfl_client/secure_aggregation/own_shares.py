"""The shares that this site gave last: who asks for the same again gets the same, also when its key is gone by then."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from msfl_common.config.base import Frozen
from msfl_common.secure_aggregation.roster import Hex32
from msfl_common.secure_aggregation.site import Opening, Shares
from msfl_common.system.files import private_folder, write_bytes

SHARES_FILE = "last-shares.json"


class _Given(Frozen):
    opening: Hex32
    own: dict[str, str]
    pairs: dict[str, dict[str, str]]
    damaged: tuple[str, ...]


def keep_shares(folder: Path, opening: Opening, shares: Shares) -> None:
    """Keep what is given for an opening.

    Raises:
        OSError: it cannot be kept, so it must not leave.
    """
    given = _Given(
        opening=opening.digest,
        own={member: share.hex() for member, share in shares.own.items()},
        pairs={
            member: {lost: shares.pairs[member, lost].hex() for lost in opening.lost}
            for member in opening.members
            if member in shares.own
        },
        damaged=shares.damaged,
    )
    private_folder(folder, within=folder.parents[1])  # the state folder
    write_bytes(folder / SHARES_FILE, given.model_dump_json().encode(), secret=True)


def kept_shares(folder: Path, opening: Opening) -> Shares | None:
    """What was given for this very opening; None if it was not the last, or cannot be read."""
    with suppress(OSError, ValidationError):
        given = _Given.model_validate_json((folder / SHARES_FILE).read_bytes())
        if given.opening == opening.digest:
            own = {member: bytes.fromhex(share) for member, share in given.own.items()}
            pairs = {
                (member, lost): bytes.fromhex(share)
                for member, shares in given.pairs.items()
                for lost, share in shares.items()
            }
            return Shares(own, pairs, given.damaged)
    return None
