"""A site's answer to a survey: fixed tables of its patients, before any of them is prepared."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np

from msfl_client.clinical.survey import Surveyed, survey_cells
from msfl_client.disclosure.budget import Budget, read_budget
from msfl_client.disclosure.floors import floor_of
from msfl_client.disclosure.survey_record import Record, read_record, rounded
from msfl_client.egress.gateway import Gateway, release
from msfl_client.rounds.budget_step import limits_of
from msfl_client.trainer import About
from msfl_common.config.site import SiteConfig
from msfl_common.errors import Code, RefusedError
from msfl_common.messages.figures import Figures
from msfl_common.messages.records import Content, RoundTask
from msfl_common.messages.survey_layout import SurveyLayout
from msfl_common.trust.signatures import canonical


def site_survey(gateway: Gateway, site: SiteConfig, task: RoundTask) -> Content:
    """Counts and histograms of all the site's patients with images, the same whatever the study is of.

    Where answers are counted, what was told before is held to (`survey_record`), and new numbers are a measurement of
    each patient in the budget of what the site gives out. Under masks, the same numbers are added up with the same
    sites in all studies, whatever a study's floor withholds of them.

    Raises:
        RefusedError: too few patients, or the budget is spent.
    """
    found, own_floor = survey_cells(site), site.policy.min_patients
    if gateway.claim is None:
        numbers = {name: [rounded(len(one), own_floor) for one in cells] for name, cells in found.cells.items()}
    else:
        before = read_record(site.state)
        numbers, record = before.tell(found.cells, own_floor)
        gateway = _counted(gateway, site, task, found, record)
    gateway = replace(gateway, tells=hashlib.sha256(canonical({"survey": numbers})).hexdigest())
    floor = floor_of(site.policy, task.study)
    shown = {name: [one if one >= floor else 0 for one in cells] for name, cells in numbers.items()}
    (all_patients,) = shown["patients"]
    if not all_patients:
        raise RefusedError(
            Code.TOO_FEW_PATIENTS, f"{len(found.cells['patients'][0])} patients with images, at least {floor} needed"
        )
    arrays = {name: np.array(cells, dtype=np.float64) for name, cells in shown.items()}
    fewest = min(one for cells in shown.values() for one in cells if one)
    figures = Figures("survey", all_patients, arrays)
    return release(gateway, figures, task.settings, task.round, fewest, SurveyLayout)


def _counted(gateway: Gateway, site: SiteConfig, task: RoundTask, found: Surveyed, record: Record) -> Gateway:
    """The gateway, which writes down what is told, and counts it in the budget, before anything leaves."""
    patients = tuple(case.patient for case in found.cases)
    about = About("metrics", tuple(case.key for case in found.cases), patients, (0,) * len(patients))
    budget, claim = read_budget(site.state), gateway.claim
    told = {name: np.array([one[-1].number], dtype=np.float64) for name, one in record.told.items()}
    news = dict.fromkeys(budget.news(about, {"survey": np.concatenate([*told.values()])}), 1) if record.is_new else {}

    def expect(of: Budget) -> None:
        of.expect_evaluation(about, limits_of(site.policy, task.study))

    if news:
        expect(budget)

    def both() -> None:
        record.keep()
        budget.keep(task.study.name, about, news, expect)
        if claim is not None:
            claim()

    return replace(gateway, claim=both)
