"""The rosters of a study that were handed out here, and which of them a person has confirmed.

A roster proves nothing: it comes from the coordinator. A person here compares its digest with the other sites' people,
and confirms it; only the one that was confirmed last serves for sums: whom a later one is without takes part in none.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import AwareDatetime, TypeAdapter, ValidationError

from msfl_common.config.base import Frozen
from msfl_common.errors import InputError
from msfl_common.secure_aggregation.roster import Hex32, Roster
from msfl_common.system.files import private_folder, write_bytes

FOLDER = "masks"
# Two files: the site's process writes the one, a person's command the other.
NEWEST_FILE, CONFIRMED_FILE = "newest-roster.json", "confirmed-rosters.json"
_ROSTERS = "rosters"


class _Newest(Frozen):
    newest: Hex32


_Confirmed = TypeAdapter(dict[Hex32, AwareDatetime])


@dataclass(frozen=True)
class RosterState:
    """Which roster is which.

    Attributes:
        newest: digest of the one that was handed out last; None while there is none.
        confirmed: digest to when a person here confirmed it, UTC; the last one at the end.
    """

    newest: str | None
    confirmed: dict[str, datetime]

    @property
    def waits(self) -> bool:
        """Whether the newest is still to be confirmed, or again, as another was since."""
        return self.newest is not None and self.newest != self.serves

    @property
    def serves(self) -> str | None:
        """The one that was confirmed last."""
        return next(reversed(self.confirmed), None)


@dataclass(frozen=True)
class Rosters:
    """Those of one study, in its folder in the state folder."""

    folder: Path

    def keep(self, roster: Roster) -> None:
        """Keep one that was handed out; one before it that nobody confirmed goes.

        Raises:
            OSError: it cannot be kept.
        """
        state = self.state()
        if state.newest == roster.digest and self.read(roster.digest) is not None:
            return
        private_folder(self.folder, within=self.folder.parents[1])  # the state folder
        write_bytes(self._file(roster.digest), roster.model_dump_json().encode(), secret=True)
        self._write(NEWEST_FILE, _Newest(newest=roster.digest).model_dump_json().encode())
        if state.newest not in (None, roster.digest, *state.confirmed):
            self._file(str(state.newest)).unlink(missing_ok=True)

    def confirm(self, digest: str) -> None:
        """Take one as confirmed."""
        state = self.state()
        if digest != state.serves:
            now, others = datetime.now(UTC).replace(microsecond=0), {**state.confirmed}
            others.pop(digest, None)
            self._write(CONFIRMED_FILE, _Confirmed.dump_json({**others, digest: now}))

    def read(self, digest: str) -> Roster | None:
        """The one of this digest; None where it is not here, or is damaged."""
        with suppress(OSError, ValidationError):
            roster = Roster.model_validate_json(self._file(digest).read_bytes())
            return roster if roster.digest == digest else None
        return None

    def newest(self) -> Roster | None:
        """The one that was handed out last; None while there is none.

        Raises:
            InputError: it, or what says which it is, is damaged.
        """
        digest = self.state().newest
        if digest is None:
            return None
        if (roster := self.read(digest)) is None:
            newest = self.folder / NEWEST_FILE
            raise InputError(f"{self._file(digest)}: missing or damaged; remove {newest}: the roster comes again")
        return roster

    def confirmed_before(self) -> Roster | None:
        """The last one that was confirmed, the newest apart."""
        state = self.state()
        earlier = [digest for digest in state.confirmed if digest != state.newest]
        return self.read(earlier[-1]) if earlier else None

    def state(self) -> RosterState:
        """Which is which.

        Raises:
            InputError: a file is damaged.
        """
        newest, confirmed = self._read(NEWEST_FILE), self._read(CONFIRMED_FILE)
        path = self.folder / NEWEST_FILE
        try:
            last = _Newest.model_validate_json(newest).newest if newest is not None else None
            path = self.folder / CONFIRMED_FILE
            return RosterState(last, _Confirmed.validate_json(confirmed) if confirmed is not None else {})
        except ValidationError:
            raise InputError(f"{path}: damaged; remove it: the roster comes again, to be confirmed anew") from None

    def _read(self, name: str) -> bytes | None:
        try:
            return (self.folder / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _write(self, name: str, content: bytes) -> None:
        write_bytes(self.folder / name, content, secret=True)

    def _file(self, digest: str) -> Path:
        return self.folder / _ROSTERS / f"{digest}.json"


def rosters_here(state: Path) -> Iterator[tuple[str, Rosters]]:
    """The studies with masks that this site has to do with, by name."""
    for folder in sorted((state / FOLDER).glob("*")):
        if (folder / NEWEST_FILE).exists():
            yield folder.name, Rosters(folder)


def waiting_rosters(state: Path) -> Iterator[str]:
    """The studies whose newest roster nobody here has confirmed yet.

    Raises:
        InputError: see `Rosters.state`.
    """
    return (study for study, rosters in rosters_here(state) if rosters.state().waits)


def roster_lines(state: Path) -> Iterator[tuple[str, str]]:
    """For each study with masks its name, and a line: who is in its roster, and what a person here has to do.

    Raises:
        InputError: see `Rosters.state`.
    """
    for study, rosters in rosters_here(state):
        found, newest = rosters.state(), rosters.newest()
        if newest is None:
            continue
        roster = f"study {study}: sums under masks, roster of {', '.join(newest.names)}"
        if found.waits:
            yield (
                study,
                f"{roster}, waits for a person here; compare its words over the telephone, and confirm it, with "
                "`msfl-client roster SITE.yaml`",
            )
        else:
            yield study, f"{roster}, confirmed on {found.confirmed[newest.digest]:%Y-%m-%d}"
