"""When a model has blown up, and the last good weights that it goes back to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from msfl_common.config.base import Task
from msfl_common.config.study import StudyConfig
from msfl_common.errors import Code, InputError, RunError
from msfl_common.messages.records import ValidationMetrics
from msfl_server.aggregation.combined import JUDGED
from msfl_server.results.summary import SiteFailure
from msfl_server.rounds.checkpoint import Checkpoint, read_checkpoint

MOST_ROLLBACKS = 3
_WORTH_JUDGING = 0.2  # above chance: below it, a fall says nothing
_LEFT = 0.1  # share of what it was above chance


def collapsed(task: Task, good: Mapping[str, ValidationMetrics], now: Mapping[str, ValidationMetrics]) -> bool:
    """Whether, at more than half of the sites that measured both, a tenth or less is left of what the model could do.

    What it could do is Dice, or AUROC above 0.5, at the last good validation, where that was at least 0.2. One site
    that lies about its own figures is not enough among three. Where rounds ask other sites each, and half of them
    or more did not measure before, those are held against the mean of those that did.
    """
    name, chance = JUDGED[task]
    before = {site: told.estimates[name].mean - chance for site, told in good.items() if name in told.estimates}
    after = {site: told.estimates[name].mean - chance for site, told in now.items() if name in told.estimates}
    if before and 2 * len(before.keys() & after.keys()) <= len(after):
        before = dict.fromkeys(after, sum(before.values()) / len(before)) | before
    judges = [site for site in after if before.get(site, 0.0) >= _WORTH_JUDGING]
    return 2 * sum(after[site] <= _LEFT * before[site] for site in judges) > len(judges)


def diverged(failures: Sequence[SiteFailure], num_asked: int) -> bool:
    """Whether more than half of the sites asked could not train from the weights that they were sent."""
    return 2 * sum(failure.code == Code.TRAINING_DIVERGED for failure in failures) > num_asked


def last_good(out: Path, before: Checkpoint, study: StudyConfig) -> Checkpoint:
    """The checkpoint of the last validation that held.

    Raises:
        RunError: the run has gone back too often, or to a checkpoint that is damaged.
    """
    good, times = before.state.good, before.state.rollbacks
    if times >= MOST_ROLLBACKS:
        raise RunError(
            f"round {before.state.round + 1}: the model came apart for the {times + 1}th time, and was set back to an "
            f"earlier round {times} times before; completed rounds are saved. Look at the sites of those rounds in "
            "summary.json, and at the learning rate"
        )
    if good == before.state.round:
        return before
    try:
        return read_checkpoint(out, good, study, expected=before.weights)
    except InputError as error:
        raise RunError(f"the model came apart, and the last good round cannot be read: {error}") from None
