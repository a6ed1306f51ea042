"""Which sites are not asked for some rounds, as what they answered was refused too often in a row.

It follows from the completed rounds, which are in every checkpoint, so a run that is resumed asks the same sites.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from msfl_server.results.summary import RoundSummary
from msfl_server.rounds.failures import BAD_FACTS, BAD_METRICS, BAD_REPLY, BAD_SUMS, BAD_UPDATE

# A site that is away, late, at its limits or that refuses by its policy is none of these.
REFUSED = frozenset({BAD_FACTS, BAD_METRICS, BAD_REPLY, BAD_SUMS, BAD_UPDATE})


def suspended(history: Iterable[RoundSummary], after: int) -> dict[str, int]:
    """The sites not to ask in the next round, and the round from which each is asked again.

    A site whose answers were refused in `after` rounds in a row, those that it was absent from not counted, is left
    alone for `after` rounds; the next time for twice as many, and so on.

    Args:
        history: the completed rounds, in order.
        after: `rounds.suspend_after`.
    """
    in_a_row: Counter[str] = Counter()
    times: Counter[str] = Counter()
    again: dict[str, int] = {}
    completed = 0
    for record in history:
        completed = record.round
        refused = {failure.site for failure in record.sites_failed if failure.code in REFUSED}
        for site in set(record.sites_ok) - refused:
            in_a_row[site] = 0
        for site in refused:
            in_a_row[site] += 1
            if in_a_row[site] == after:
                in_a_row[site] = 0
                again[site] = completed + 1 + after * 2 ** min(times[site], 30)
                times[site] += 1
    return {site: number for site, number in sorted(again.items()) if number > completed + 1}
