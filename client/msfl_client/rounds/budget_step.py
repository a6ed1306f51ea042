"""A context's answers held against the budget of what the site gives out about its patients (`disclosure.budget`).

Where answers are counted, as in a deployment; a simulation keeps no register, and its folds are no one else's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from msfl_client.disclosure.budget import Budget, Limits, Planned, Spent, read_budget
from msfl_client.disclosure.floors import floor_of
from msfl_client.disclosure.releases import count_numbers, planned_harmonization, planned_numbers
from msfl_client.egress.answers import Claim
from msfl_client.harmonization.combat import Rows
from msfl_client.rounds.site_context import SiteContext
from msfl_client.trainer import About, value_digests
from msfl_common.config.site import Policy
from msfl_common.config.study import StudyConfig
from msfl_common.feature_models import Phase, State, model_of, phase_of
from msfl_common.messages.records import ModelUpdate, RoundTask, ValidationMetrics

Arrays = Mapping[str, NDArray[np.float64]]


def limits_of(policy: Policy, study: StudyConfig) -> Limits:
    """What the site's policy allows in a study; a model that has no last round is measured in each."""
    has_end = study.classification is None or study.classification.model.num_rounds_needed is not None
    most = policy.max_evaluations if has_end else max(policy.max_evaluations, policy.max_rounds)
    return Limits(policy.max_release, most, floor_of(policy, study))


def budgeted_update(context: SiteContext, task: RoundTask, asked: State, update: ModelUpdate) -> SiteContext:
    """The context, whose answer to a state is within the budget, and written down there before it leaves.

    Raises:
        RefusedError: with the code BUDGET_SPENT. The first answer about these cases is refused where the whole study
            would not fit.
        InputError: what was given out cannot be read.
    """
    settings = task.settings.classification
    about = context.learner.about("training")
    if context.gateway.claim is None or about is None or settings is None:
        return context
    if not (model_of(settings).answers_sums or phase_of(asked) is Phase.PREPARE):
        return context
    answer = {**update.weights, "train_loss": np.array(update.train_loss)}
    return _budgeted(context, task, about, answer, _of_training(task, about))


def budgeted_harmonization(context: SiteContext, task: RoundTask, rows: Rows, answer: Arrays) -> SiteContext:
    """The same for sums of a harmonization; what the model takes afterwards must fit, too."""
    if context.gateway.claim is None:
        return context
    about = about_rows(rows, task)
    planned = [(about, planned_harmonization(rows.covariates_NQ.shape[1], len(rows.names)))]
    trains = task.settings.classification is not None
    if trains and (trained := context.learner.about("to-harmonize")) is not None:
        planned += _of_training(task, trained)
    return _budgeted(context, task, about, answer, planned)


def budgeted_metrics(context: SiteContext, task: RoundTask, metrics: ValidationMetrics) -> SiteContext:
    """The same for metrics of patients; told again, they cost nothing.

    Raises:
        RefusedError: with the code BUDGET_SPENT.
        InputError: what was given out cannot be read.
    """
    about = context.learner.about(task.split)
    if context.gateway.claim is None or about is None:
        return context
    figures = [one.mean for _, one in sorted(metrics.estimates.items())]
    counts = [value.ravel() for value in metrics.arrays.values()]
    answer = {"metrics": np.concatenate([figures, *counts])}
    budget, (about,) = _known_budget(context, about)
    news = dict.fromkeys(budget.news(about, answer), 1)

    def expect(of: Budget) -> None:
        of.expect_evaluation(about, limits_of(context.site.policy, task.study))

    if news:
        expect(budget)
    return _claimed(context, lambda: budget.keep(task.study.name, about, news, expect))


def foresee_spent(context: SiteContext, task: RoundTask, rows: Rows | None) -> tuple[Spent, Spent] | None:
    """What a study will have found spent of the budget of its training cases, and what it leaves; None: not counted.

    Raises:
        RefusedError: the study does not fit.
        InputError: what was given out cannot be read.
    """
    about = context.learner.about("training")
    if about is None or not about.keys:
        return None
    limits = limits_of(context.site.policy, task.study)
    budget, (about, *harmonized) = _known_budget(
        context, about, *([about_rows(rows, task)] if rows is not None else [])
    )
    planned = _of_training(task, about) if budget.is_new(task.study.name, about) else []
    if rows is not None and planned:
        planned = [(harmonized[0], planned_harmonization(rows.covariates_NQ.shape[1], len(rows.names))), *planned]
    budget.expect_room(planned, limits)
    return budget.spent(about, limits), budget.spent(about, limits, planned)


def foresee_measured(context: SiteContext, task: RoundTask) -> None:
    """See whether patients may be measured once more.

    Raises:
        RefusedError: with the code BUDGET_SPENT.
        InputError: what was given out cannot be read.
    """
    if (about := context.learner.about(task.split)) is not None:
        budget, (about,) = _known_budget(context, about)
        budget.expect_evaluation(about, limits_of(context.site.policy, task.study))


def about_rows(rows: Rows, task: RoundTask) -> About:
    """The cases of a harmonization's sums."""
    covariates = tuple(task.study.harmonization.covariates)
    of_features, of_columns = value_digests(rows.features_NP), value_digests(rows.covariates_NQ.astype(np.float64))
    values = tuple(
        (*one, *("".join(other),) * len(covariates)) for one, other in zip(of_features, of_columns, strict=True)
    )
    return About("harmonization", rows.keys, rows.patients, (0,) * len(rows), (*rows.names, *covariates), values)


def _of_training(task: RoundTask, about: About) -> list[Planned]:
    settings = task.settings.classification
    assert settings is not None
    return [(about, planned_numbers(settings, task.settings.rounds.num_rounds))]


def _budgeted(
    context: SiteContext, task: RoundTask, about: About, answer: Arrays, planned: Sequence[Planned]
) -> SiteContext:
    budget, (about, *others) = _known_budget(context, about, *(of for of, _ in planned))
    news = budget.news(about, answer)

    def expect(of: Budget) -> None:
        told_before = count_numbers(answer) - sum(news.values())
        whole = [
            (one, numbers - told_before * (one == about)) for one, (_, numbers) in zip(others, planned, strict=True)
        ]
        is_new = of.is_new(task.study.name, about)
        of.expect_room(whole if is_new else [(about, sum(news.values()))], limits_of(context.site.policy, task.study))

    if news:
        expect(budget)
    return _claimed(context, lambda: budget.keep(task.study.name, about, news, expect))


def _known_budget(context: SiteContext, *cases: About) -> tuple[Budget, list[About]]:
    """What was given out, and cases under the names of earlier answers about them.

    Raises:
        InputError: what was given out cannot be read.
    """
    budget = read_budget(context.site.state)
    present = context.learner.about("all") if budget.given else None
    return budget, [budget.as_known(one, [present] if present is not None else []) for one in cases]


def _claimed(context: SiteContext, keep: Claim) -> SiteContext:
    claim = context.gateway.claim
    assert claim is not None

    def both() -> None:
        keep()
        claim()

    return replace(context, gateway=replace(context.gateway, claim=both))
