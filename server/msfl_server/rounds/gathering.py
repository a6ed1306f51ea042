"""What comes of the sites that train in a round: their updates one by one, or the sum of all under masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from msfl_common.config.study import Rounds
from msfl_common.errors import FutileRunError, NoCaseOfClassError, RunError, UpdateError
from msfl_common.messages.layouts import POOLED, update_layout
from msfl_common.messages.records import pack_task
from msfl_server.aggregation.combined import Combined
from msfl_server.aggregation.update_checks import FACTS_STEP
from msfl_server.aggregation.update_figures import UpdateFigures
from msfl_server.aggregation.update_store import update_store
from msfl_server.results.summary import SiteFailure
from msfl_server.results.training_inputs import TrainingInputs, training_inputs
from msfl_server.rounds.exchange import Question, ask
from msfl_server.rounds.failures import BAD_UPDATE
from msfl_server.rounds.mask_roster import Masks
from msfl_server.rounds.masked_sums import SumRequest, ask_sum
from msfl_server.rounds.one_round import OneRound
from msfl_server.rounds.updates import Intake, combine_usable


@dataclass(frozen=True)
class Gathered:
    """What the training of a round came to.

    Attributes:
        combined: the next weights; None where fewer sites answered than the quorum.
        cases: training cases by site, or of all sites together under the name `pooled`.
        sites: whose updates count.
        answered: who has sent an update, also one that was refused.
        seconds: that the sites needed.
        failures: why the others' do not count.
        training: what first sums tell of the training cases.
        figures: how long the updates are, and which ones stand out; none under masks.
    """

    combined: Combined | None
    cases: Mapping[str, int]
    sites: Sequence[str]
    answered: Sequence[str]
    seconds: Sequence[float]
    failures: tuple[SiteFailure, ...]
    training: Mapping[str, TrainingInputs]
    figures: Mapping[str, UpdateFigures] = field(default_factory=dict)


def gather_updates(this: OneRound, learners: Mapping[int, str]) -> Gathered:
    """Each site's update, checked, and all that are usable combined.

    Raises:
        FutileRunError: a class without a case, after the answers of all sites.
        RunError: they cannot be combined, whichever is left out.
    """
    task, before, strategy = this.task, this.before, this.strategy
    rounds = task.settings.rounds
    last = before.state.history[-1].updates if before.state.history else {}
    earlier = {site: update.cosine for site, update in last.items()}
    with update_store(this.out) as store:
        question = Question(
            "train",
            lambda: pack_task(task, strategy.request(before.weights, before.sets)),
            Intake(strategy, before.weights, store, this.roster.told, rounds).read,
            BAD_UPDATE,
            strategy.answer_like(before.weights),
        )
        on_wait = partial(this.listener.on_wait, task.round, "training")
        answers = ask(this.grid, learners, question, task.round, rounds, on_wait)
        sent = {this.present[node]: update for node, update in answers.replies.items()}
        try:
            usable = combine_usable(strategy, before.weights, before.sets, sent, rounds.quorum, earlier)
        except NoCaseOfClassError as error:
            if this.roster.absent or answers.failures:  # those may bring one yet
                raise
            raise FutileRunError(str(error)) from error  # an answer stays the same when it is asked for again
    return Gathered(
        combined=usable.combined,
        cases={site: update.num_cases for site, update in usable.updates.items()},
        sites=sorted(usable.updates),
        answered=sorted(sent),
        seconds=[update.seconds for update in usable.updates.values()],
        failures=(*answers.failures, *usable.failures),
        training=dict(usable.training),
        figures=usable.figures,
    )


def gather_sum(this: OneRound, masks: Masks, learners: Mapping[int, str]) -> Gathered:
    """The sum of the sites' updates, of which nobody sees a single one, and the weights that come of it.

    Raises:
        FutileRunError: the sum is none that cases give; sites open no other one of this round.
        RunError: too few sites have helped to open it.
    """
    task, before, strategy = this.task, this.before, this.strategy
    rounds = task.settings.rounds
    layout = update_layout(task.settings, strategy.request(before.weights, before.sets))
    asked = SumRequest(
        "train",
        task,
        lambda: pack_task(task, strategy.request(before.weights, before.sets)),
        layout.ring,
        layout.length,
        BAD_UPDATE,
        rounds.quorum,
        may_change=True,
    )
    summed = ask_sum(masks, learners, asked, partial(this.listener.on_wait, task.round, "training"))
    if summed.total is None:
        return Gathered(None, {}, (), (), (), summed.failures, {})
    try:
        with np.errstate(all="ignore"):
            update = layout.decode(summed.total)
            expect_counts(update.num_cases, summed.members, this.roster.told, rounds)
            first_sums = strategy.pooled_first_sums(before.weights, update)
            combined = strategy.combine_sum(before.weights, before.sets, summed.total)
    except (UpdateError, RunError) as error:
        raise FutileRunError(
            f"round {task.round}: the sum of {', '.join(summed.members)} cannot be used: {error}. Under masks nobody "
            "can say whose value it is, and sites open one sum of a round; completed rounds are saved"
        ) from error
    return Gathered(
        combined=combined,
        cases={POOLED: update.num_cases},
        sites=summed.members,
        answered=summed.members,
        seconds=(update.seconds,),
        failures=summed.failures,
        training={} if first_sums is None else {POOLED: training_inputs(first_sums)},
    )


def expect_counts(num_cases: int, members: Sequence[str], told: Mapping[str, int], rounds: Rounds) -> None:
    """Refuse more cases than the sites in a sum have told of, or than the study lets them count for.

    Raises:
        UpdateError: there are more.
    """
    most = sum(min(told.get(site, rounds.max_cases) + FACTS_STEP - 1, rounds.max_cases) for site in members)
    if num_cases > most:
        raise UpdateError(
            f"says that it is of {num_cases} cases; at most {most} were expected from the sites' facts and the study's "
            "`rounds.max_cases`"
        )
