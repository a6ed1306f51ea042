"""The roster of sums under masks, as people at the coordinator read it out to those at the sites."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from msfl_common.secure_aggregation.spoken import words_of
from msfl_server.rounds.mask_roster import CONFIRMING, read_roster
from msfl_server.run.status import RunStatus

_WORDS_A_LINE = 6


def roster_lines(out: Path) -> list[str]:
    """Who is in the roster of a run, and its digest to compare; nothing before it is made.

    Raises:
        InputError: it is damaged.
    """
    roster = read_roster(out)
    if roster is None:
        return []
    words = words_of(roster.digest)
    spoken = [words[start : start + _WORDS_A_LINE] for start in range(0, len(words), _WORDS_A_LINE)]
    return [
        f"roster of the sums under masks: {', '.join(roster.names)}; a sum has {roster.min_sites} of them or more, and "
        f"{roster.threshold} open it",
        f"its digest: {roster.digest}",
        *(f"  {' '.join(line)}" for line in spoken),
    ]


def roster_document(out: Path, waits_for: Sequence[str]) -> dict[str, object] | None:
    """The same for programs; None before it is made.

    Raises:
        InputError: it is damaged.
    """
    roster = read_roster(out)
    if roster is None:
        return None
    return {
        "digest": roster.digest,
        "words": words_of(roster.digest),
        "sites": roster.names,
        "min_sites": roster.min_sites,
        "threshold": roster.threshold,
        "waits_for": list(waits_for),
    }


def unconfirmed(status: RunStatus | None) -> tuple[str, ...]:
    """The sites whose people have not confirmed the roster, where the run waits for that."""
    return status.waits_for if status is not None and status.doing == CONFIRMING else ()


def confirmation_line(names: Sequence[str]) -> str:
    """What people at these sites have to do."""
    return (
        f"waiting for people at {', '.join(names)}: read the words out to them over the telephone; they compare them "
        "with their own and with the other sites', and confirm with `msfl-client roster`"
    )
