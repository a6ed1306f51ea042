"""The measures of harmonization: against cases whose scanner, age and outcome effects are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier

from msfl_client.harmonization.combat import Rows, SiteFit, fit_scanners
from msfl_common.config.study import Harmonization
from msfl_common.harmonization import Reference, covariate_columns
from msfl_server.research.simulation import harmonization_measures
from msfl_server.research.simulation.harmonization_measures import (
    CasesInOnePlace,
    age_associations,
    outcome_associations,
    scanner_predictability,
)

SETTINGS = Harmonization(method="combat", features=("bpf", "gm_volume_ml"), covariates=("age",))


@pytest.fixture
def cases() -> CasesInOnePlace:
    """Two features, three scanners of 40 cases; the raw ones are shifted by scanner, whose patients differ in age."""
    rng = np.random.default_rng(0)
    scanner = np.repeat([0, 1, 2], 40)
    ages = rng.uniform(20, 50, 120) + 8 * scanner
    outcomes = rng.integers(0, 2, 120).astype(float)
    clean = rng.normal(size=(120, 2))
    clean[:, 0] -= 0.05 * ages
    clean[:, 1] += 0.8 * outcomes
    raw = clean + 4.0 * scanner[:, None] * np.array([1.0, -1.0])
    outcomes[:5] = np.nan
    columns = covariate_columns({"age": ages}, SETTINGS)
    return CasesInOnePlace(
        raw=Rows(SETTINGS.features, raw, columns, tuple(f"s{number}" for number in scanner)),
        harmonized_NP=clean,
        settings=SETTINGS,
        patients=tuple(map(str, range(120))),
        ages=ages,
        outcomes=outcomes,
    )


@pytest.mark.slow
def test_the_scanner_is_told_from_raw_features_alone(cases: CasesInOnePlace) -> None:
    # Ages differ between scanners, and the first feature falls with age: that trace is true, and stays.
    second = SETTINGS.model_copy(update={"features": ("gm_volume_ml",)})
    raw = replace(cases.raw, names=second.features, features_NP=cases.raw.features_NP[:, 1:])
    for found in scanner_predictability(replace(cases, raw=raw, settings=second), seed=0):
        assert found.before.value > 0.9
        assert found.before.low > found.chance == pytest.approx(1 / 3)
        assert found.after.low < found.chance < found.after.high
        assert found.after.low < found.after.value < found.after.high


@pytest.mark.slow
def test_patients_held_out_do_not_enter_the_fit(cases: CasesInOnePlace, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def note(rows: Rows, reference: Reference) -> SiteFit:
        seen.append(len(rows))
        return fit_scanners(rows, reference)

    monkeypatch.setattr(harmonization_measures, "fit_scanners", note)
    monkeypatch.setattr(harmonization_measures, "RandomForestClassifier", lambda *given, **named: DummyClassifier())
    twice = [row for row in range(120) for _ in range(2)]  # two visits of each, of whom the first is fitted to
    scanner_predictability(
        replace(
            cases,
            raw=cases.raw.take(twice),
            harmonized_NP=cases.harmonized_NP[twice],
            patients=tuple(cases.patients[row] for row in twice),
            ages=cases.ages[twice],
            outcomes=cases.outcomes[twice],
        ),
        seed=0,
    )
    assert len(seen) == 5
    assert sum(seen) == 4 * 120


def test_age_is_kept_and_was_hidden(cases: CasesInOnePlace) -> None:
    first, second = age_associations(cases)
    assert first.within == pytest.approx(-0.5, abs=0.1)
    assert first.after == pytest.approx(first.within, abs=0.1)
    assert first.before > 0  # the scanner's shift turned it round
    assert abs(second.after) < 0.15


def test_outcome_is_kept(cases: CasesInOnePlace) -> None:
    first, second = outcome_associations(cases)
    assert second.within == pytest.approx(0.8, abs=0.35)
    assert second.after == pytest.approx(second.within, abs=0.15)
    assert abs(first.after) < 0.5
