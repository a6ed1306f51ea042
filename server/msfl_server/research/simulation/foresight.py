"""Before the first round of a simulation: what its sites will refuse or withhold, by the rules that they go by."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from msfl_client.rounds.forecast import Forecast, Step, Withheld, forecast
from msfl_client.rounds.forecast_words import forecast_lines, titles_of
from msfl_client.trainer import OnProgress
from msfl_common.config.stages import Part, is_asked_to, stages_of, study_at
from msfl_common.config.study import StudyConfig
from msfl_common.errors import Code, InputError, RunError, in_brackets
from msfl_common.feature_models.first_sums import expect_every_class
from msfl_common.metrics.registry import STRATA, metrics_of
from msfl_server.research.simulation.folder import RunSetup
from msfl_server.rounds.harmonization import MIN_SITES, solve_first
from msfl_server.rounds.sampling import sampled


def foresee_run(setup: RunSetup, on_progress: OnProgress) -> tuple[Forecast, ...]:
    """What each site will refuse or withhold; what it would refuse as a real one is `deployed`.

    Where rounds ask some sites each, those of the first one alone.
    """
    asked = first_asked(setup)
    there = [site for site in setup.sites if site.name in asked]
    return tuple(_simulated(forecast(site, setup.study, on_progress, has_budget=True)) for site in there)


def _simulated(made: Forecast) -> Forecast:
    """A forecast of a site that does not count what it gives out."""
    spent = tuple(one for one in made.withheld if one.code is Code.BUDGET_SPENT)
    rest = tuple(one for one in made.withheld if one.code is not Code.BUDGET_SPENT)
    return replace(made, withheld=rest, deployed=spent, budget=None)


def first_asked(setup: RunSetup) -> frozenset[str]:
    """The sites that a first round asks; all, where some stage asks all."""
    names = frozenset(site.name for site in setup.sites)
    stages = [study_at(setup.study, stage) for stage in stages_of(setup.study)]
    if any(stage.rounds.fraction == 1 for stage in stages):
        return names
    left_out = names & {setup.study.left_out}
    return left_out.union(*(sampled(stage, 1, names - left_out) for stage in stages))


def say_forecasts(study: StudyConfig, forecasts: Sequence[Forecast], say: Callable[[str], None]) -> None:
    """A line for each step that a site refuses and each set of figures that it withholds."""
    for line in foresight_lines(study, forecasts):
        say(line)
    if not _tellers(study, forecasts):
        say("So no site will tell any figure of the final model.")


def foresight_lines(study: StudyConfig, forecasts: Sequence[Forecast]) -> Iterator[str]:
    """The lines of the sites' forecasts, and what under masks is not shown because so few sites tell it."""
    yield from forecast_lines(forecasts)
    whose = [f"{made.site} ({one.why})" for made in forecasts for one in made.deployed if one.step == "training"]
    if whose:
        yield (
            f"Real sites with these patients would not train (BUDGET_SPENT), as they count what they give out, which a "
            f"simulation does not: {'; '.join(whose)}"
        )
    settings = study.secure_aggregation
    steps: tuple[tuple[Step, Part], ...] = (("validation", "train"), ("test", "test"))
    for step, part in steps if settings.method == "masks" else ():
        asked = [one for one in forecasts if is_asked_to(part, study, one.site) and one.refused(step) is None]
        withheld = [
            {name for one in site.withheld if (one.stage, one.step) == ("final", step) for name in one.metrics}
            for site in asked
        ]
        few = [
            name
            for name in metrics_of(study.task, study.inputs.lesion_classes)
            if name not in STRATA and 0 < sum(name not in names for names in withheld) < settings.min_sites
        ]
        if few:
            yield (
                f"Under masks no {titles_of(few)} of {step} patients is shown: fewer than {settings.min_sites} sites "
                "tell it (secure_aggregation.min_sites)."
            )


def expect_answers(study: StudyConfig, forecasts: Sequence[Forecast]) -> None:
    """Refuse a study in which a round, or the harmonization before them, cannot have enough answers.

    Raises:
        InputError: names the sites that will refuse, and why, the class that none of them trains on, or the column that
            none of them has.
    """
    lacking = set[str].intersection(*({*one.lacking} for one in forecasts)) if forecasts else set()
    if lacking:
        names, where = ", ".join(sorted(lacking)), study.test_section
        raise InputError(
            f"{where}.declared: {names}: no table of any site has such a column; add it to participants.tsv, "
            f"sessions.tsv or phenotype/*.tsv, or leave it out of `declared` and `clinical`"
        )
    if study.evaluate is not None:
        refusals = {one.site: one.refused("test") for one in forecasts}
        _expect(study.rounds.quorum, "the quorum is", "measure the model", refusals)
        return
    for stage in stages_of(study):
        settings = study_at(study, stage)
        asked = [one for one in forecasts if is_asked_to("train", study, one.site)]
        # Too few sites for the quorum, whatever they answer, is what the run itself says.
        last = settings.rounds.num_rounds if settings.rounds.fraction == 1 else 1  # others are asked in later ones
        for number in range(1, last + 1) if len(asked) >= settings.rounds.quorum else ():
            refusals = {one.site: one.refused("training", number, stage) for one in asked}
            _expect(settings.rounds.quorum, "the quorum is", f"train in round {number}", refusals)
        if settings.harmonization.method != "none":
            refusals = {one.site: one.refused("harmonization", stage=stage) for one in asked}
            _expect(MIN_SITES, "its harmonization needs", "give sums", refusals)
            moments = {number: one.moments for number, one in enumerate(asked) if one.moments is not None}
            try:
                solve_first(moments, study.harmonization)
            except RunError as error:
                raise InputError(str(error)) from None
    counts_SK = [one.cases_in_sums for one in forecasts if one.cases_in_sums]
    if study.classification is not None and counts_SK:
        try:
            expect_every_class(study.classification, np.sum(counts_SK, axis=0))
        except RunError as error:
            raise InputError(str(error)) from None


def _expect(needed: int, rule: str, what: str, refusals: Mapping[str, Withheld | None]) -> None:
    num_answers = sum(refusal is None for refusal in refusals.values())
    if num_answers < needed:
        told = [f"{site}: {one.why}{in_brackets(one.code)}" for site, one in refusals.items() if one is not None]
        why = "; ".join(told) or "no other site is asked"
        raise InputError(f"{num_answers} of {len(refusals)} sites will {what}, and {rule} {needed}: {why}")


def _tellers(study: StudyConfig, forecasts: Sequence[Forecast]) -> list[str]:
    """The sites that tell figures of the final model."""
    has_test = study.has_test or study.evaluate is not None
    step: Step = "test" if has_test else "validation"
    part: Part = "test" if has_test else "train"
    return [one.site for one in forecasts if is_asked_to(part, study, one.site) and one.refused(step) is None]
