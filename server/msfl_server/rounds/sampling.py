"""Which sites are asked in a round, where a study asks a share of them (client sampling: McMahan et al., AISTATS 2017).

Each site draws a lot of its own for each round, from the study's seed, and the lowest are asked. So a run that is
resumed asks the same sites, and one that comes or goes changes no other's lot.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msfl_common.config.study import StudyConfig
from msfl_common.system.seeds import derive_seed
from msfl_server.results.summary import RoundSummary


def num_sampled(study: StudyConfig, num_sites: int) -> int:
    """How many of so many sites are asked in a round of a stage."""
    rounds = study.rounds
    return min(num_sites, max(rounds.quorum, round(rounds.fraction * num_sites)))


def sampled(study: StudyConfig, number: int, names: Iterable[str]) -> frozenset[str]:
    """The sites that are asked in a round.

    Args:
        study: of the stage.
        number: of the round.
        names: the sites that could be.
    """
    lots = sorted((derive_seed(study.seed, "sampling", number, name), name) for name in names)
    return frozenset(name for _, name in lots[: num_sampled(study, len(lots))])


def awaited(study: StudyConfig, invited: Iterable[str], history: Sequence[RoundSummary]) -> tuple[str, ...]:
    """The sites that the next round waits for before it begins.

    Args:
        study: of the stage.
        invited: the sites of a deployed study.
        history: the completed rounds.
    """
    if not history:
        return tuple(invited)
    if study.rounds.fraction == 1:
        return history[-1].sites_ok
    failed = {failure.site for failure in history[-1].sites_failed}
    return tuple(name for name in invited if name not in failed)
