"""What the ledger shows of masked sums: that no mask served two values, and no request was opened with other sites.

Either would let a site's own value be worked out, as the difference of two messages.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from msfl_client.egress.ledger_line import InSum, Line
from msfl_common.config.message_kinds import MASKED_AS
from msfl_common.errors import InputError
from msfl_common.system.words import counted

# Lines of what a person here did.
ANSWERS_RESET, BUDGET_RESET, ROSTER_CONFIRMED = "answers_reset", "budget_reset", "roster_confirmed"
VALUES, SHARES = frozenset(MASKED_AS.values()), "unmask_shares"
_MOST_NAMED = 12


@dataclass
class MaskedSums:
    """The masked sums of one study.

    Attributes:
        values: messages that left under masks.
        sums: digests of the sums' contexts.
        sites: all that were asked for a value in one of these sums.
        least: fewest sites of any of these sums when it is opened; None while there is none.
        opened: digests of the requests whose sum this site helped to open.
        rosters: digest to when a person here confirmed it, UTC; empty where the ledger does not say.
    """

    values: int = 0
    sums: set[str] = field(default_factory=set)
    sites: set[str] = field(default_factory=set)
    least: int | None = None
    opened: set[str] = field(default_factory=set)
    rosters: dict[str, str] = field(default_factory=dict)

    def add(self, line: Line) -> None:
        """One more line of the study's."""
        about = line.in_sum
        if about is None:
            return
        if line.kind in VALUES:
            self.values += 1
            self.sums.add(about.context)
            self.sites |= set(about.sites)
            self.least = min(about.least, self.least or about.least)
        elif line.kind == SHARES:
            self.opened.add(about.request)
        before = self.rosters.setdefault(about.roster, "")
        self.rosters[about.roster] = before or (line.time if line.kind == ROSTER_CONFIRMED else "")

    @property
    def sentence(self) -> str:
        """What a hospital can show of them."""
        names = sorted(self.sites)
        named = ", ".join(names) if len(names) <= _MOST_NAMED else f"{', '.join(names[:_MOST_NAMED])} and others"
        opened = f"this site helped to open {counted(len(self.opened), 'sum')}"
        if not self.values:
            return opened
        left = f"{counted(self.values, 'value')} left under masks, for {counted(len(self.sums), 'sum')}"
        return f"{left} that can be opened with those of at least {self.least} sites alone, of {named}; {opened}"


@dataclass
class SumsCheck:
    """All masked sums of a ledger, held against each other line by line.

    Attributes:
        studies: by name, those that have some.
    """

    ledger: Path
    studies: dict[str, MaskedSums] = field(default_factory=dict)
    _sent: dict[str, tuple[str, int]] = field(default_factory=dict)  # context: digest of the value, and its line
    _opened: dict[tuple[str, str], tuple[str, int]] = field(default_factory=dict)  # study, request: likewise

    def line(self, line: Line) -> None:
        """The next line.

        Raises:
            InputError: it has another value under masks that were used, or opens a request once more.
        """
        if line.kind == ANSWERS_RESET:  # a person has let the study be answered anew
            self._opened = {key: found for key, found in self._opened.items() if key[0] != line.study}
        if line.in_sum is None:
            return
        self.studies.setdefault(line.study, MaskedSums()).add(line)
        if line.kind in VALUES:
            self._expect_same(self._sent.setdefault(line.in_sum.context, _said(line.in_sum, line)), line, "masks")
        elif line.kind == SHARES:
            found = self._opened.setdefault((line.study, line.in_sum.request), _said(line.in_sum, line))
            self._expect_same(found, line, "opening")

    def _expect_same(self, before: tuple[str, int], line: Line, what: str) -> None:
        assert line.in_sum is not None
        if before[0] == line.in_sum.digest:
            return
        if what == "masks":
            text = f"line {line.number} has another value than line {before[1]} under the same masks"
        else:
            text = f"line {line.number} opens a request that line {before[1]} opened with other sites"
        raise InputError(
            f"{self.ledger}: {text}: this site's own value can be worked out of the two; tell the other sites, and the "
            "data protection officer"
        )

    @property
    def sentences(self) -> Iterator[str]:
        """What was found; nothing where there are no masked sums."""
        for study, sums in self.studies.items():
            if sums.values or sums.opened:
                yield (
                    f"Study {study}: {sums.sentence}; no mask served two values, and no request was opened twice with "
                    "other sites"
                )


def _said(about: InSum, line: Line) -> tuple[str, int]:
    return about.digest, line.number
