"""All that is known of a simulation before its first round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from msfl_client.rounds.forecast import Forecast
from msfl_client.rounds.forecast_words import forecast_document
from msfl_client.rounds.site_context import open_context
from msfl_client.trainer import OnProgress
from msfl_common.config.site import SiteConfig
from msfl_common.config.stages import stages_of, study_at
from msfl_common.config.study import StudyConfig
from msfl_common.errors import InputError, MsflError
from msfl_common.messages.records import RoundTask
from msfl_common.privacy_accounting import planned_epsilon
from msfl_server.research.simulation.folder import RunSetup, check_sites
from msfl_server.research.simulation.foresight import expect_answers, foresee_run, foresight_lines
from msfl_server.research.simulation.training_time import TrainingTime, training_time
from msfl_server.run.cost import StageCost, cost_of


@dataclass(frozen=True)
class SitePatients:
    """A site's split in the study's first stage: cases and patients; None where it is not asked for any.

    Attributes:
        site: its name.
        cases_train: cases that the model learns from.
        patients_train: patients of those.
        patients_validation: patients that measure the model as it trains.
        patients_test: those of the final figures, where the study keeps some; those that measure a trained model.
    """

    site: str
    cases_train: int | None = None
    patients_train: int | None = None
    patients_validation: int | None = None
    patients_test: int | None = None


@dataclass(frozen=True)
class DryRun:
    """What a run would be.

    Attributes:
        study: its settings.
        costs: its stages.
        sites: who would learn and measure.
        forecasts: what sites will refuse or withhold.
        fault: why no round could count; None where one can.
        training: how long the training steps of networks of lesions would take; None where there is none.
    """

    study: StudyConfig
    costs: tuple[StageCost, ...]
    sites: tuple[SitePatients, ...]
    forecasts: tuple[Forecast, ...]
    fault: str | None
    training: TrainingTime | None = None

    @property
    def lines(self) -> tuple[str, ...]:
        """A line for each step that sites will refuse, and each set of figures that they will withhold."""
        return tuple(foresight_lines(self.study, self.forecasts))

    def document(self) -> dict[str, Any]:
        """The same for programs; it counts patients and stays where it is."""
        return {
            "study": self.study.name,
            "task": self.study.task,
            "can_start": self.fault is None,
            "fault": self.fault,
            "epsilon": planned_epsilon(self.study),
            "training": None if self.training is None else asdict(self.training),
            "stages": [asdict(one) for one in self.costs],
            "sites": [asdict(one) for one in self.sites],
            "forecasts": [forecast_document(one) for one in self.forecasts],
        }


def dry_run(study: StudyConfig, sites: Sequence[SiteConfig], on_progress: OnProgress) -> DryRun:
    """Look through the sites' cases as a run does before its first round; their state folders alone are written to.

    Raises:
        InputError: the quorum is larger than the sites are many, or a fold leaves out a site that there is not.
    """
    check_sites(study, [site.name for site in sites])
    forecasts = foresee_run(RunSetup(study=study, sites=tuple(sites)), on_progress)
    patients = tuple(site_patients(site, study, on_progress) for site in sites)
    open_context.cache_clear()
    fault = None
    try:
        expect_answers(study, forecasts)
    except InputError as error:
        fault = str(error)
    learners = [site for site, one in zip(sites, patients, strict=True) if one.cases_train is not None]
    training = training_time(study, learners) if fault is None and study.evaluate is None else None
    return DryRun(study, tuple(cost_of(study)), patients, forecasts, fault, training)


def site_patients(site: SiteConfig, study: StudyConfig, on_progress: OnProgress) -> SitePatients:
    """How many train, validate and test at a site, as far as it can take part."""
    stage = stages_of(study)[0]
    try:
        learner = open_context(site, study, on_progress, stage, None).learner
    except MsflError:  # the forecast says why
        return SitePatients(site.name)
    task = RoundTask(study, 1, stage=stage)
    if study.evaluate is not None:
        return SitePatients(site.name, patients_test=learner.num_patients(replace(task, split="test")))
    tests = study_at(study, stage).has_test
    return SitePatients(
        site=site.name,
        cases_train=learner.num_train_cases,
        patients_train=learner.num_train_patients,
        patients_validation=learner.num_patients(task),
        patients_test=learner.num_patients(replace(task, split="test")) if tests else None,
    )
