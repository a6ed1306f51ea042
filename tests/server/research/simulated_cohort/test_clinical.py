"""Clinical records: population figures, EDSS steps, and how well the outcomes can be predicted at all."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from msfl_server.research.simulated_cohort.clinical import (
    ClinicalRecord,
    SitePrevalence,
    draw_prevalence,
    sample_clinical,
    valid_edss,
    worsening_step,
)


@pytest.fixture(scope="module")
def records() -> list[ClinicalRecord]:
    rng = np.random.default_rng(3)
    return [sample_clinical(rng, SitePrevalence(activity=0.10, progression=0.12)) for _ in range(6000)]


@pytest.mark.slow
@pytest.mark.parametrize("outcome", ["activity", "progression"])
def test_true_predictor_reaches_a_plausible_auroc(records: list[ClinicalRecord], outcome: str) -> None:
    truth = [getattr(record, outcome) for record in records]
    auroc = roc_auc_score(truth, [getattr(record, f"{outcome}_log_odds") for record in records])
    assert 0.70 < auroc < 0.80


def test_population(records: list[ClinicalRecord]) -> None:
    assert np.mean([record.sex == "F" for record in records]) == pytest.approx(0.73, abs=0.02)
    assert np.mean([record.age_years for record in records]) == pytest.approx(37, abs=1)
    assert np.mean([record.activity for record in records]) == pytest.approx(0.10, abs=0.015)
    assert np.mean([record.progression for record in records]) == pytest.approx(0.12, abs=0.015)
    ln_ml = np.log([record.burden.volume_ml for record in records])
    assert ln_ml.mean() == pytest.approx(2.14, abs=0.15)
    assert ln_ml.std() == pytest.approx(1.3, abs=0.2)
    assert {record.ms_course for record in records} == {"CIS", "RR", "SP", "PP"}


def test_edss_is_valid_and_agrees_with_the_outcome(records: list[ClinicalRecord]) -> None:
    steps = {0.0, *np.arange(1.0, 10.5, 0.5)}
    for record in records:
        assert record.edss in steps
        assert record.edss_follow_up in steps
        rise = record.edss_follow_up - record.edss
        assert (rise >= worsening_step(record.edss)) == record.progression


def test_activity_means_new_or_enlarging_lesions(records: list[ClinicalRecord]) -> None:
    for record in records:
        assert (record.burden.new_lesions + record.burden.enlarging_lesions > 0) == record.activity


def test_prevalence_of_sites() -> None:
    rng = np.random.default_rng(0)
    rates = [draw_prevalence(rng).activity for _ in range(500)]
    assert min(rates) >= 0.05
    assert max(rates) <= 0.25
    assert np.median(rates) == pytest.approx(0.10, abs=0.01)


@pytest.mark.parametrize(("value", "step"), [(-1, 0), (0.4, 1.0), (0.2, 0), (1.3, 1.5), (11, 9.5)])
def test_valid_edss(value: float, step: float) -> None:
    assert valid_edss(value) == step
