"""Networks that an audit trains on some of the patients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from msfl_client.classification.visit_sequences import VisitSequence
from msfl_common.config.base import validate
from msfl_common.config.study import StudyConfig
from msfl_server.research.audit import fitted_networks, membership
from msfl_server.research.audit.fitted_networks import CLIPPING, fits
from msfl_server.research.audit.patients import NOISE, Cohort

STUDY: dict[str, Any] = {
    "name": "pilot",
    "task": "classification",
    "rounds": {"num_rounds": 1},
    "training": {"steps_per_round": 1, "batch_size": 16},
    "classification": {
        "outcome": {"endpoint": "edss-worsening", "observations": "first"},
        "model": {"kind": "lesion-encoder", "width": 2, "slices": 8, "pixels": 16},
    },
}
PRIVATE = {"noise_multiplier": 1.0, "sampling_rate": 0.5}


def sequence(number: int) -> VisitSequence:
    rng = np.random.default_rng(number)
    volume_CDHW = rng.uniform(0, 255, (2, 8, 16, 16)).astype(np.float32)
    values_VE = rng.normal(size=(1, 3)).astype(np.float32)
    return VisitSequence((volume_CDHW,), values_VE, np.ones(1, bool), number % 2, f"{number:03}")


def cohort(**changes: Any) -> Cohort:
    study = validate(StudyConfig, {**STUDY, **changes}, "test")
    sites = {"a": [sequence(number) for number in range(12)], "b": [sequence(number) for number in range(12, 22)]}
    return Cohort(study, {}, {}, 3, lambda: None, sites)


@pytest.mark.slow
def test_a_model_learns_from_those_who_are_in_and_from_the_classes_given() -> None:
    labels_N, by_defence = fits(cohort())
    assert [*labels_N] == [number % 2 for number in range(22)]
    assert [*by_defence] == [""]
    fit, inside_N = by_defence[""], np.arange(22) % 3 > 0
    first_NK = fit(labels_N, inside_N, 0)
    assert np.array_equal(fit(labels_N, inside_N, 1), first_NK)  # without noise its number says nothing
    for turned, is_seen in ((1, True), (3, False)):
        other_N = labels_N.copy()
        other_N[turned] = 1 - other_N[turned]
        assert np.array_equal(fit(other_N, inside_N, 0), first_NK) != is_seen


@pytest.mark.slow
def test_noise_is_of_the_model_and_the_site_and_the_same_once_more() -> None:
    labels_N, by_defence = fits(cohort(differential_privacy=PRIVATE))
    assert [*by_defence] == ["", NOISE]
    inside_N = np.ones(22, bool)
    first_NK = by_defence[NOISE](labels_N, inside_N, 0)
    assert np.array_equal(by_defence[NOISE](labels_N, inside_N, 0), first_NK)
    assert not np.allclose(by_defence[NOISE](labels_N, inside_N, 1), first_NK)
    one, other = (fitted_networks._SimulatedRounds.begin(_rounds(of), 1, {}, "").digest for of in ("a 0", "b 0"))
    assert one != other


def _rounds(release: str) -> Any:
    return type("Rounds", (), {"study": cohort().study, "release": release})()


def test_clipping_without_noise_is_a_defence_of_its_own_name() -> None:
    assert [*fits(cohort(differential_privacy={**PRIVATE, "noise_multiplier": 0.0}))[1]] == ["", CLIPPING]


def test_membership_is_told_of_a_network_that_knows_its_patients_and_not_of_one_that_knows_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def knows(labels_N: Any, inside_N: Any, number: int) -> Any:
        del number
        p_N = np.where(inside_N, 0.9, 0.5)
        return np.stack([np.where(labels_N == one, p_N, 1 - p_N) for one in (0, 1)], axis=1)

    def knows_none(labels_N: Any, inside_N: Any, number: int) -> Any:
        del inside_N
        p_N = np.random.default_rng(number).uniform(0.2, 0.8, len(labels_N))
        return np.stack([1 - p_N, p_N], axis=1)

    audited, done = cohort(), list[None]()
    monkeypatch.setattr(membership, "_DRAWS", 50)
    monkeypatch.setattr(fitted_networks, "fits", lambda _: (fits(audited)[0], {"": knows, CLIPPING: knows_none}))
    findings = membership.audit(Cohort(audited.study, {}, {}, 16, lambda: done.append(None), audited.networks))
    assert len(done) == 2 * 16
    found = {(one.figure, one.measured.defence): one for one in findings}
    assert found["AUC, patients", ""].measured.value == 1
    assert [found["AUC, patients", defence].verdict for defence in ("", CLIPPING)] == ["leaks", "bounded"]
