"""What the sites measure of a round's model."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import partial

from msfl_common.messages.records import RoundTask, ValidationMetrics, pack_task
from msfl_common.models.weights import Weights
from msfl_server.results.summary import SiteFailure
from msfl_server.rounds.exchange import Question, ask
from msfl_server.rounds.failures import BAD_METRICS
from msfl_server.rounds.metrics import read_metrics, usable_metrics
from msfl_server.rounds.one_round import OneRound, asked_to, at_step, step_of
from msfl_server.rounds.pooled_metrics import pooled_metrics
from msfl_server.rounds.roster import meet_all


@dataclass(frozen=True)
class Others:
    """The sites that the last round did not ask.

    Attributes:
        present: the nodes, and their sites.
        validation: what they measured of its model.
        failures: of those who could not be asked, or did not answer.
        seconds: that it took; they are none of the round's.
    """

    present: Mapping[int, str] = field(default_factory=dict)
    validation: Mapping[str, ValidationMetrics] = field(default_factory=dict)
    failures: tuple[SiteFailure, ...] = ()
    seconds: float = 0.0


def validate_round(
    this: OneRound, task: RoundTask, weights: Weights, present: Mapping[int, str]
) -> tuple[dict[str, ValidationMetrics], tuple[SiteFailure, ...]]:
    """Each site's aggregate metrics of the averaged weights, or those of all under masks.

    A site with too few cases reports none.
    """
    if this.masks is not None:
        return pooled_metrics(this, this.masks, task, weights, present)
    question = Question(
        "evaluate",
        lambda: pack_task(task, weights),
        lambda site, content: read_metrics(task.settings, site, content, this.roster.told),
        BAD_METRICS,
    )
    step = step_of(task)
    on_wait = partial(this.listener.on_wait, task.round, step)
    answers = ask(this.grid, present, question, task.round, task.settings.rounds, on_wait)
    usable, failures = usable_metrics({present[node]: metrics for node, metrics in answers.replies.items()})
    return usable, at_step(step, (*answers.failures, *failures))


def measure_others(this: OneRound, task: RoundTask, weights: Weights, without: Collection[str]) -> Others:
    """Meet the sites that the last round did not ask, and let them measure what is handed out.

    Args:
        this: the round.
        task: its task.
        weights: to be measured, but where a test of other patients follows.
        without: sites that have been given up.
    """
    started = time.monotonic()
    failures = meet_all(this.grid, task, this.roster, this.listener)
    everyone = this.roster.present(this.grid)
    present = {node: name for node, name in everyone.items() if node not in this.present and name not in without}
    validation: Mapping[str, ValidationMetrics] = {}
    if not task.settings.has_test:
        validation, more = validate_round(this, task, weights, asked_to("train", task.study, present))
        failures = (*failures, *more)
    return Others(present, validation, failures, time.monotonic() - started)
