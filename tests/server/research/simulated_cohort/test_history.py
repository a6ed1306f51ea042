"""Subscores by Kurtzke's rules, series of EDSS, and the groups besides MS."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from msfl_common.config.clinical_values import CLINICAL_VALUES
from msfl_server.research.simulated_cohort.clinical import ClinicalRecord, SitePrevalence
from msfl_server.research.simulated_cohort.functional_systems import draw_involvement, subscores
from msfl_server.research.simulated_cohort.groups import GROUPS, sample_record
from msfl_server.research.simulated_cohort.history import History, sample_history
from msfl_server.research.simulated_cohort.truth import auroc, best_auroc, truth_row

PREVALENCE = SitePrevalence(activity=0.10, progression=0.12)
STEPS = [0.0, *np.arange(1.0, 10.0, 0.5).tolist()]


@pytest.fixture(scope="module")
def patients() -> list[tuple[ClinicalRecord, History]]:
    rng = np.random.default_rng(5)
    records = [sample_record(rng, "MS", PREVALENCE) for _ in range(4000)]
    return [(record, sample_history(rng, record, first_year=False)) for record in records]


def kurtzke(scores: list[int]) -> float | None:
    """EDSS below 4.5 from the seven subscores of a patient who walks without limit; None above."""
    grades = sorted(scores, reverse=True)
    count = {grade: grades.count(grade) for grade in range(7)}
    match grades[0]:
        case 0:
            return 0.0
        case 1:
            return 1.0 if count[1] == 1 else 1.5
        case 2:
            return {1: 2.0, 2: 2.5, 3: 3.0, 4: 3.0}.get(count[2], 3.5)
        case 3:
            return 3.0 if count[3] == 1 and not count[2] else 3.5 if count[3] <= 2 and count[2] <= 2 else 4.0
        case 4:
            return 4.0 if count[4] == 1 and not count[3] and not count[2] else None
    return None


@pytest.mark.parametrize("edss", STEPS)
def test_subscores_give_the_edss_back(edss: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        found = subscores(edss, draw_involvement(rng))
        assert list(found) == [name for name in CLINICAL_VALUES if name.startswith("fs_")]
        assert all(0 <= score <= CLINICAL_VALUES[name].bounds[1] for name, score in found.items())
        *systems, ambulation = found.values()
        assert kurtzke(systems) == (edss if edss <= 4 else None)
        assert (ambulation > 0) == (edss >= 4)
        assert (ambulation >= 5) == (edss >= 6)
    walks = [subscores(step, draw_involvement(rng))["fs_ambulation"] for step in STEPS]
    assert walks == sorted(walks)


def test_visits_agree_with_the_record(patients: list[tuple[ClinicalRecord, History]]) -> None:
    for record, history in patients:
        scores = {visit.days: visit.edss for visit in history.visits}
        assert scores[0] == record.edss
        assert scores.get(365, record.edss_follow_up) == record.edss_follow_up
        assert set(scores.values()) <= set(STEPS)
        assert all(later - earlier >= 150 for earlier, later in pairwise(scores))
    lasts = [history.last_day for _, history in patients]
    assert np.mean(np.array(lasts) < 365) == pytest.approx(1 - 0.95**2, abs=0.02)


def test_relapses_are_those_of_the_record(patients: list[tuple[ClinicalRecord, History]]) -> None:
    for record, history in patients:
        assert sum(-365 < day < 0 for day in history.relapse_days) == record.relapses_prior_year
        assert all(day <= history.last_day for day in history.relapse_days)


def test_conversion_is_of_cis_alone_and_predictable_in_part(patients: list[tuple[ClinicalRecord, History]]) -> None:
    isolated = [(record, history) for record, history in patients if record.ms_course == "CIS"]
    assert all(history.conversion_days is None for record, history in patients if record.ms_course != "CIS")
    outcomes = [history.conversion_days is not None for _, history in isolated]
    assert np.mean(outcomes) == pytest.approx(0.45, abs=0.07)
    rows = [truth_row("site-a", PREVALENCE, "sub-001", record, history) for record, history in patients]
    best = best_auroc(rows)
    assert set(best) == {"activity_1y", "progression_1y", "conversion_2y"}
    assert all(0.65 < value < 0.82 for value in best.values())
    scores = [history.conversion_log_odds for _, history in isolated]
    assert best["conversion_2y"] == pytest.approx(roc_auc_score(outcomes, scores), abs=1e-4)


def test_a_sites_own_rate_is_part_of_the_truth(patients: list[tuple[ClinicalRecord, History]]) -> None:
    rates = {"activity": [], "progression": []}
    for record, history in patients:
        row = truth_row("site-a", PREVALENCE, "sub-001", record, history)
        for name, values in rates.items():
            values.append(1 / (1 + np.exp(-float(row[f"{name}_1y_log_odds"]))))
    # The unseen part of the log odds moves rates this low up a little.
    assert np.mean(rates["activity"]) == pytest.approx(PREVALENCE.activity, abs=0.02)
    assert np.mean(rates["progression"]) == pytest.approx(PREVALENCE.progression, abs=0.02)


def test_auroc_counts_ties_half() -> None:
    assert auroc(np.array([True, False, False]), np.array([1.0, 1.0, 0.0])) == 0.75
    rng = np.random.default_rng(0)
    outcomes, scores = rng.random(200) < 0.3, rng.integers(0, 9, 200).astype(float)
    assert auroc(outcomes, scores) == pytest.approx(roc_auc_score(outcomes, scores))


def test_groups() -> None:
    rng = np.random.default_rng(1)
    groups = {name: [sample_record(rng, name, PREVALENCE) for _ in range(600)] for name in GROUPS}
    volumes = {name: np.array([one.burden.volume_ml for one in records]) for name, records in groups.items()}
    assert volumes["HC"].max() < 0.25
    assert np.median(volumes["NMOSD"]) < 0.2 * np.median(volumes["MS"])
    assert {one.diagnosis for one in groups["NMOSD"]} == {"NMOSD"}
    assert {one.ms_course for one in groups["HC"]} == {"n/a"}
    assert np.mean([one.sex == "F" for one in groups["NMOSD"]]) == pytest.approx(0.87, abs=0.05)
    history = sample_history(rng, groups["HC"][0], first_year=True)
    assert (history.visits, history.relapse_days) == ((), ())
