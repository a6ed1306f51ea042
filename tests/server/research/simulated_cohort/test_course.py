"""Years of patients who are seen every year: shares, steps of the EDSS, and how far the next year can be predicted."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tests.server.research.simulated_cohort.test_history import STEPS, kurtzke

from msfl_server.research.simulated_cohort.clinical import SitePrevalence, worsening_step
from msfl_server.research.simulated_cohort.course import Course, sample_course
from msfl_server.research.simulated_cohort.groups import sample_record

PREVALENCE = SitePrevalence(activity=0.10, progression=0.12)
VISITS = 5
pytestmark = pytest.mark.slow


def courses_of(group: str, count: int, prevalence: SitePrevalence = PREVALENCE) -> list[Course]:
    rng = np.random.default_rng(6)
    return [sample_course(rng, sample_record(rng, group, prevalence), prevalence, VISITS) for _ in range(count)]


@pytest.fixture(scope="module")
def courses() -> list[Course]:
    return courses_of("MS", 600)


def changes(course: Course) -> list[bool]:
    return [visit.burden.new_lesions + visit.burden.enlarging_lesions > 0 for visit in course.visits[1:]]


def test_a_tenth_of_the_years_are_active(courses: list[Course]) -> None:
    active = np.array([course.active for course in courses])
    assert active.mean() == pytest.approx(0.10, abs=0.015)
    assert active.mean(axis=0) == pytest.approx(np.full(VISITS - 1, 0.10), abs=0.03)  # no year stands out
    often = SitePrevalence(activity=0.6, progression=0.1)
    assert np.mean([course.active for course in courses_of("MS", 200, often)]) == pytest.approx(0.6, abs=0.06)
    assert np.mean(1 / (1 + np.exp([-np.array(course.log_odds) for course in courses]))) == pytest.approx(
        active.mean(), abs=0.015
    )


def test_active_means_lesions_or_worsening(courses: list[Course]) -> None:
    alone = []
    for course in courses:
        scores = [visit.clinical.edss for visit in course.visits]
        worse = [later - edss >= worsening_step(edss) for edss, later in pairwise(scores)]
        assert [*course.active] == [a or b for a, b in zip(changes(course), worse, strict=True)]
        assert course.record.progression == worse[0]
        assert course.record.activity == changes(course)[0]
        alone += [b and not a for a, b in zip(changes(course), worse, strict=True)]
    assert 0.005 < np.mean(alone) < 0.03


def test_edss_and_subscores_are_valid_at_every_visit(courses: list[Course]) -> None:
    for course in courses:
        for visit in course.visits:
            *systems, ambulation = visit.clinical.subscores.values()
            assert visit.clinical.edss in STEPS
            assert kurtzke(systems) == (visit.clinical.edss if visit.clinical.edss <= 4 else None)
            assert (ambulation > 0) == (visit.clinical.edss >= 4)
    assert [visit.clinical.visit_id for visit in courses[0].visits] == [f"ses-0{number}" for number in range(1, 6)]


def test_visits_are_a_year_apart_with_relapses_between(courses: list[Course]) -> None:
    for course in courses:
        days = [visit.clinical.days for visit in course.visits]
        assert days[0] == 0
        assert all(0.9 * 365.25 <= later - earlier <= 1.1 * 365.25 for earlier, later in pairwise(days))
        assert all(day <= days[-1] for day in course.history.relapse_days)
        assert sum(day < 0 for day in course.history.relapse_days) == course.record.relapses_prior_year


def test_lesions_and_tissue_go_with_activity(courses: list[Course]) -> None:
    changed = np.array([changes(course) for course in courses])
    atrophy = np.array([[visit.atrophy for visit in course.visits] for course in courses])
    loss = np.diff(atrophy)
    assert loss.mean() == pytest.approx(0.27, abs=0.03)
    assert loss[changed].mean() - loss[~changed].mean() == pytest.approx(0.1, abs=0.04)
    assert changed[:, 1:][changed[:, :-1]].mean() > 1.5 * changed[:, 1:][~changed[:, :-1]].mean()
    for course in courses[:200]:
        for before, after in pairwise(course.visits):
            there = before.burden.num_lesions + before.burden.new_lesions
            assert after.burden.num_lesions == there - after.resolved
    assert 0.5 < np.mean([visit.resolved for course in courses for visit in course.visits[1:]]) < 1.5


def test_the_next_year_is_predictable_in_part(courses: list[Course]) -> None:
    rows, labels, patients, best, scores = [], [], [], [], []
    for number, course in enumerate(courses):
        before = [0, *changes(course)]
        for year, visit in enumerate(course.visits[:-1]):
            load = np.log(visit.burden.volume_ml)
            rows.append([course.record.age_years + year, load, visit.atrophy, visit.clinical.edss, before[year]])
            labels.append(course.active[year])
            patients.append(number)
            best.append(course.log_odds[year])
            scores.append(visit.clinical.edss)
    model = make_pipeline(StandardScaler(), LogisticRegression())
    found = cross_val_predict(model, np.array(rows), labels, groups=patients, cv=GroupKFold(5), method="predict_proba")
    plain = roc_auc_score(labels, found[:, 1])
    assert 0.62 < plain < roc_auc_score(labels, best) < 0.80
    assert 0.50 < roc_auc_score(labels, scores) < plain  # the composite EDSS alone says less


def test_an_isolated_syndrome_converts_with_its_first_relapse(courses: list[Course]) -> None:
    isolated = [course for course in courses if course.record.ms_course == "CIS"]
    assert isolated
    for course in courses:
        later = [day for day in course.history.relapse_days if day > 0]
        expected = later[0] if later and course in isolated else None
        assert course.history.conversion_days == expected


def test_others_have_no_years_of_ms() -> None:
    controls, nmosd = courses_of("HC", 40), courses_of("NMOSD", 100)
    assert not any(any(changes(course)) or course.log_odds or course.history.visits for course in controls)
    assert np.mean([changes(course) for course in nmosd]) == pytest.approx(0.05, abs=0.03)
    assert not any(course.log_odds for course in nmosd)
