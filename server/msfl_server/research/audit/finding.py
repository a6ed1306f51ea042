"""What an attack came to, and the one rule by which that is a leak."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["leaks", "bounded", "inconclusive"]
RULE = (
    "An attack works where the lower end of its 95% interval is above chance. Leaks: it works. Bounded: it works "
    "without a defence, and does not with it. Inconclusive: it does not work without any defence, so that its "
    "failure shows nothing."
)


@dataclass(frozen=True)
class Measured:
    """What an attack reached against one defence.

    Attributes:
        defence: what stood against it; empty for none.
        value, low, high: the figure, with its 95% interval.
        number: rows or patients that it is a share of, or rests on.
        chance: what it is without any leak.
        note: what else is to know; may be empty.
    """

    defence: str
    value: float
    low: float
    high: float
    number: int
    chance: float
    note: str = ""

    @property
    def works(self) -> bool:
        """Whether it is above chance."""
        return self.low > self.chance


@dataclass(frozen=True)
class Finding:
    """A line of the audit.

    Attributes:
        attack: its name.
        figure: what was measured.
        measured: the figure.
        verdict: see `RULE`.
    """

    attack: str
    figure: str
    measured: Measured
    verdict: Verdict


def judged(attack: str, figure: str, without: Measured, defended: Sequence[Measured]) -> list[Finding]:
    """The lines of an attack: without a defence, and against each.

    Args:
        attack: its name.
        figure: what was measured.
        without: against no defence.
        defended: against each defence.
    """

    def verdict(one: Measured) -> Verdict:
        if not without.works:
            return "inconclusive"
        return "leaks" if one.works else "bounded"

    return [Finding(attack, figure, one, verdict(one)) for one in (without, *defended)]
