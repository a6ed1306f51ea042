"""What a site will refuse, or withhold, in a study: the study played on its cases, without a model, before it starts.

Each step is what the site's app does in a round: the same context, the same splits, the same floors. What follows from
a model's answers, as how many patients are given a class, shows only in the rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

from msfl_client.classification.outcome_data import Assumed, Harmonized
from msfl_client.clinical.records import lacking_columns
from msfl_client.disclosure.budget import Spent
from msfl_client.disclosure.floors import check_floor, floor_of
from msfl_client.disclosure.request_size import check_size
from msfl_client.egress.gateway import check_allowed, check_kind, check_request
from msfl_client.harmonization.combat import Rows, compute_moments
from msfl_client.harmonization.site import foresee_harmonized
from msfl_client.rounds.budget_step import foresee_measured, foresee_spent
from msfl_client.rounds.harmonization_step import case_features, harmonization_rows
from msfl_client.rounds.refusals import code_of
from msfl_client.rounds.site_context import SiteContext, build_context, check_budget, check_training, open_context
from msfl_client.trainer import Foreseen, OnProgress
from msfl_common.config.message_kinds import MOMENTS, REQUESTS
from msfl_common.config.site import SiteConfig
from msfl_common.config.stages import Stage, fold_of, is_asked_to, stages_of, study_at
from msfl_common.config.study import StudyConfig
from msfl_common.errors import Code, InputError, RefusedError
from msfl_common.harmonization import Moments
from msfl_common.messages.records import RoundTask
from msfl_common.system.files import private_folder

Step = Literal["taking part", "harmonization", "training", "validation", "test"]
_MOST_ROUNDS = 1000  # looked at
T = TypeVar("T")


@dataclass(frozen=True)
class Withheld:
    """A step of a study that a site will refuse, or metrics that it will not tell.

    Attributes:
        stage: of the study.
        step: what is asked.
        code: what the coordinator is told.
        why: for the site's own eyes.
        rounds: those alone; empty: all.
        metrics: those alone; empty: the whole answer.
    """

    stage: Stage
    step: Step
    code: Code
    why: str
    rounds: tuple[int, ...] = ()
    metrics: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether nothing comes of the step."""
        return not (self.rounds or self.metrics)


@dataclass(frozen=True)
class Depends:
    """Metrics of a step that a site tells with some answers of the model, and not with others."""

    stage: Stage
    step: Step
    metrics: tuple[str, ...]


@dataclass(frozen=True)
class Trained:
    """Training cases of each class that a site's sums are of."""

    cases: tuple[int, ...]


@dataclass(frozen=True)
class Budgeted:
    """What is spent of the budget of a site's training cases before a study, and after it."""

    before: Spent
    after: Spent


_Found = Withheld | Depends | Trained | Moments | Budgeted


@dataclass(frozen=True)
class Forecast:
    """What a site will not tell.

    Attributes:
        site: whose.
        withheld: in the order of the steps.
        depends: what shows only in the rounds.
        assumed: what was taken for granted, in words; empty where all was there.
        floor: fewest patients of a figure, and of each class in it.
        cases_in_sums: training cases of each class that its sums are of, where it trains a model of features.
        budget: of its training cases, where it is kept and the study fits.
        moments: its first sums of a harmonization; they stay where they were computed.
        deployed: in a simulation, what a real site would refuse besides, which counts what it gives out.
        lacking: columns that the study declares, and no table of the site has.
    """

    site: str
    floor: int
    withheld: tuple[Withheld, ...]
    depends: tuple[Depends, ...]
    assumed: str = ""
    cases_in_sums: tuple[int, ...] = ()
    budget: Budgeted | None = None
    moments: Moments | None = field(default=None, repr=False)
    deployed: tuple[Withheld, ...] = ()
    lacking: tuple[str, ...] = ()

    def hopeless(self, study: StudyConfig) -> Withheld | None:
        """Why the site would be asked in vain, whatever the round; None where something comes of it."""
        step: Step = "training" if is_asked_to("train", study, self.site) else "test"
        # A fold's model may be trained by other sites alone.
        refusals = (self.refused(step, stage=stage) for stage in stages_of(study) if fold_of(stage) is None)
        return next((one for one in refusals if one is not None), None)

    def refused(self, step: Step, round_number: int | None = None, stage: Stage = "final") -> Withheld | None:
        """Why a step is refused in a round, or in all of them; None where it is not."""
        refusals = (one for one in self.withheld if one.stage == stage and one.step in (step, "taking part"))
        return next((one for one in refusals if one.is_whole or round_number in one.rounds), None)


def forecast(
    site: SiteConfig,
    study: StudyConfig,
    on_progress: OnProgress,
    has_features: bool = False,
    has_budget: bool = False,
) -> Forecast:
    """Play a study at a site, up to where a model is needed.

    Args:
        site: whose cases.
        study: the whole of it.
        on_progress: told what is done, and who is left out.
        has_features: whether every case is taken to have every feature, as none is measured yet.
        has_budget: whether the site keeps count of what it gives out, as in a deployment.
    """
    found: list[_Found] = []
    assumed = "each case is taken to have every feature of images" if has_features else ""
    for stage in stages_of(study):
        after_lesions = stage == "final" and study.segmentation is not None
        if after_lesions:
            assumed = "each case is taken to have every feature of images: the study's own model outlines the lesions"
        found += _play(site, study, stage, on_progress, Assumed(has_features=has_features or after_lesions), has_budget)
    return Forecast(
        site.name,
        floor_of(site.policy, study),
        tuple(one for one in found if isinstance(one, Withheld)),
        tuple(one for one in found if isinstance(one, Depends)),
        assumed,
        next((one.cases for one in found if isinstance(one, Trained)), ()),
        next((one for one in found if isinstance(one, Budgeted)), None),
        next((one for one in found if isinstance(one, Moments)), None),
        lacking=_lacking(site, study),
    )


def _lacking(site: SiteConfig, study: StudyConfig) -> tuple[str, ...]:
    try:
        return lacking_columns(site, study.classification.declared) if study.classification else ()
    except InputError:  # a table cannot be read: so says what comes of the steps
        return ()


def _play(
    site: SiteConfig, study: StudyConfig, stage: Stage, on_progress: OnProgress, assumed: Assumed, has_budget: bool
) -> Iterator[_Found]:
    task, settings = RoundTask(study, 1, stage=stage), study_at(study, stage)

    def meet() -> SiteContext:
        private_folder(site.state)
        check_request(site.policy, study, 1, stage)
        check_size(site, study)
        check_allowed(site.policy, REQUESTS["query"].answer)
        if assumed.has_features:
            return build_context(site, study, on_progress, stage, None, assumed)
        return open_context(site, study, on_progress, stage, None)

    context, refusal = _try(stage, "taking part", meet)
    if context is None:
        yield from refusal
        return
    learns = is_asked_to("train", study, site.name)
    rows = None
    if settings.harmonization.method != "none":
        if learns:
            sums, refusal = _try(stage, "harmonization", lambda: _give_sums(context, task))
            rows = sums[0] if sums is not None else None
            yield from refusal if sums is None else [sums[1]]
        if settings.classification is not None and settings.classification.features:
            context = _harmonized(context, task, assumed)
    if learns:
        refused = list(_rounds(context, task))
        yield from refused
        if has_budget and not refused:
            yield from _spending(context, task, rows)
        if not any(one.is_whole for one in refused):
            yield Trained(context.learner.cases_in_sums)
        yield from _figures(context, task, "validation", has_budget)
    has_test = settings.has_test or study.evaluate is not None
    if has_test and is_asked_to("test", study, site.name):
        yield from _figures(context, replace(task, split="test"), "test", has_budget)


def _give_sums(context: SiteContext | None, task: RoundTask) -> tuple[Rows, Moments]:
    assert context is not None
    check_kind(context.site.policy, task.study, REQUESTS[f"query.{MOMENTS}"].answer)
    rows = harmonization_rows(context, task)[0]
    return rows, compute_moments(rows)


def _spending(context: SiteContext, task: RoundTask, rows: Rows | None) -> Iterator[Withheld | Budgeted]:
    """What the study takes of the budget; where it does not fit, no sums leave, of a harmonization either."""
    spent, refusal = _try(task.stage, "training", lambda: foresee_spent(context, task, rows))
    if rows is not None:
        yield from (replace(one, step="harmonization") for one in refusal)
    yield from refusal
    if spent is not None:
        yield Budgeted(*spent)


def _harmonized(context: SiteContext, task: RoundTask, assumed: Assumed) -> SiteContext:
    """The context as it is once the site has taken a reference."""
    settings, features = task.study.harmonization, case_features(context, task)
    made = foresee_harmonized(context.training, context.cases, context.site, settings, features)
    harmonized = Harmonized(made[1].table, made[0]) if made is not None else Harmonized()
    more = replace(assumed, harmonized=harmonized)
    return build_context(context.site, task.study, context.on_progress, task.stage, None, more)


def _rounds(context: SiteContext, task: RoundTask) -> Iterator[Withheld]:
    """The rounds of training that are refused, together where they have one code, with the first one's reason."""
    if over := _try(task.stage, "training", lambda: check_budget(context, task))[1]:
        yield from over
        return
    numbers = range(1, min(task.settings.rounds.num_rounds, _MOST_ROUNDS) + 1)
    refused: dict[Code, dict[int, str]] = {}
    for number in numbers:

        def train(number: int = number) -> None:
            check_kind(context.site.policy, task.study, REQUESTS["train"].answer)
            check_training(context, replace(task, round=number))

        for one in _try(task.stage, "training", train)[1]:
            refused.setdefault(one.code, {})[number] = one.why
    for code, rounds in refused.items():
        why = next(iter(rounds.values()))
        yield Withheld(task.stage, "training", code, why, () if len(rounds) == len(numbers) else tuple(rounds))


def _figures(
    context: SiteContext, task: RoundTask, step: Literal["validation", "test"], has_budget: bool
) -> Iterator[Withheld | Depends]:
    """What is not told of the patients of a split."""

    def measure() -> Foreseen:
        check_kind(context.site.policy, task.study, REQUESTS["evaluate"].answer)
        check_floor(context.site.policy, task.study, context.learner.num_patients(task))
        found = context.learner.foresee(task)
        check_floor(context.site.policy, task.study, found.min_patients)
        if has_budget:
            foresee_measured(context, task)
        return found

    found, refusal = _try(task.stage, step, measure)
    yield from refusal
    if found is not None and found.withheld:
        yield Withheld(task.stage, step, Code.TOO_FEW_PATIENTS, found.why, metrics=found.withheld)
    if found is not None and found.depends:
        yield Depends(task.stage, step, found.depends)


def _try(stage: Stage, step: Step, do: Callable[[], T]) -> tuple[T | None, list[Withheld]]:
    """What came of a step, or as what the site's app would refuse it."""
    try:
        return do(), []
    except Exception as error:
        why = error.why if isinstance(error, RefusedError) else str(error)
        return None, [Withheld(stage, step, code_of(error), why)]
