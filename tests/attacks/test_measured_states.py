"""Attacks by what is measured: states made so that a metric counts the patients beyond a threshold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from msfl_client.rounds.app import claim_of
from msfl_common.config.feature_catalogue import FEATURES
from msfl_common.config.site import Policy, SiteConfig
from msfl_common.config.study import StudyConfig
from msfl_common.dataset import Dataset
from msfl_common.errors import Code, RefusedError
from msfl_common.feature_models import Phase, State, predict_proba
from msfl_common.feature_models.state import scalar
from msfl_common.messages.records import RoundTask, pack_task
from msfl_server.research.audit.bisection import at_point
from tests.attacks.feature_sites import Site, play
from tests.attacks.reading_rows import Floats
from tests.attacks.test_sums import KINDS
from tests.feature_models import make_cases, make_settings

_AGES, _SEXES, _STEPS = 1000, 2, 20  # ages in tenths of a year, both sexes, half steps of the EDSS
Brier = Callable[[State], float]


def people(seed: int, number: int) -> Dataset:
    """Age, sex and EDSS of patients, and whether they got worse."""
    rng = np.random.default_rng(seed)
    ages, sexes = np.round(rng.uniform(20, 60, number), 1), (np.arange(number) % 3 == 0).astype(float)
    edss = np.round(rng.uniform(1, 7, number) * 2) / 2
    labels = (edss + rng.normal(size=number) > 4).astype(np.int64)
    return Dataset(tuple(FEATURES)[:3], np.column_stack([ages, sexes, edss]), labels, tuple(map(str, range(number))))


def by_brier(brier: Brier, start: State, num_cases: int) -> tuple[list[Floats], int]:
    """Rows of the cases measured, with the outcome, and requests: age, sex and EDSS are one whole number to bisect.

    A model that is sure of all beyond a threshold has the Brier score of those that it is wrong about.
    """
    asked = 0
    code = np.array([10.0 * _SEXES * _STEPS, _STEPS, 2.0])  # of a row
    slopes = code / np.diag(start["projection"])

    def wrong(threshold: float) -> int:
        nonlocal asked
        asked += 1
        line = 1e3 * np.append(slopes, code @ start["mean"] - threshold)
        return round(num_cases * brier(start | at_point(line[None])))

    def visit(low: int, at_low: int, high: int, at_high: int) -> None:
        if high - low == 1:
            for _ in range(abs(at_high - at_low)):  # who is no longer called worse: wrongly so if he was
                ages, rest = divmod(low, _SEXES * _STEPS)
                found.append(np.array([ages / 10, *divmod(rest, _STEPS), at_high > at_low]) * [1, 1, 0.5, 1])
        else:  # two who cancel out are looked for, too
            middle = (low + high) // 2
            at_middle = wrong(middle - 0.5)
            for ends in ((low, at_low, middle, at_middle), (middle, at_middle, high, at_high)):
                if ends[1] != ends[3] or ends[2] - ends[0] > 400:
                    visit(*ends)

    found: list[Floats] = []
    first, last = 15 * 400, 65 * 400
    visit(first, wrong(first - 0.5), last, wrong(last - 0.5))
    return found, asked


def test_a_metric_that_counts_patients_beyond_a_threshold_is_refused(tmp_path: Path) -> None:
    settings, cases = make_settings({"kind": "logistic"}, 3), people(1, 14)
    site = Site(settings, people(0, 55), tmp_path, validation=cases)
    state = play(settings, {"site-0": site}, 1)[-1]

    def bare(asked: State) -> float:
        return float(((predict_proba(settings, asked, cases.features_NP)[:, 1] - cases.labels_N) ** 2).mean())

    found, asked = by_brier(bare, state, 14)
    rows = np.column_stack([cases.features_NP, cases.labels_N])
    hits = sum(any((np.abs(row - one) < 1e-6).all() for one in found) for row in rows)
    assert hits == 14
    assert asked < 1000
    with pytest.raises(RefusedError, match="coefficients") as error:
        by_brier(lambda asked: site.measure(asked).estimates["brier"].mean, state, 14)
    assert error.value.code is Code.BAD_MODEL


def of_huge_link(state: State) -> State:
    """A finished machine's scores through a curve that is a step."""
    return state | {"link": np.array([[1e6, -2e5]])}


def of_another_scale(state: State) -> State:
    """Inputs so far apart that any slope is steep."""
    return state | {"projection": 1e6 * state["projection"]}


def not_begun(state: State) -> State:
    """A model that calls itself one of no sums yet."""
    return state | {"phase": scalar(Phase.PREPARE)}


@pytest.mark.parametrize("made", [of_huge_link, of_another_scale, not_begun])
@pytest.mark.parametrize("has_answered", [True, False])
def test_a_finished_model_of_the_coordinators_own_is_not_measured(
    tmp_path: Path, made: Callable[[State], State], has_answered: bool
) -> None:
    settings, cases = make_settings({"kind": "linear-svm"}, 6), make_cases(0, (55, 40), 6, signal=0.6)
    site = Site(settings, cases["site-0"], tmp_path, validation=cases["site-1"])
    state = play(settings, {"site-0": site})[-1]
    if not has_answered:
        site = Site(settings, cases["site-0"], tmp_path / "late", validation=cases["site-1"])
    site.measure(state)
    with pytest.raises(RefusedError) as error:
        site.measure(made(state))
    assert error.value.code is Code.BAD_MODEL


@pytest.mark.parametrize(("kind", "most"), [("logistic", 18), ("linear-svm", 33), ("random-forest", 4), ("lda", 3)])
@pytest.mark.parametrize("purpose", ["train", "validation"])
def test_rounds_that_no_such_model_needs_are_not_answered(tmp_path: Path, kind: str, most: int, purpose: str) -> None:
    settings = make_settings({"kind": kind}, 3)
    study = StudyConfig(name="long", task="classification", classification=settings)
    study = study.model_copy(update={"rounds": study.rounds.model_copy(update={"num_rounds": 100})})
    site = SiteConfig(name="here", data=(tmp_path,), state=tmp_path / "state", policy=Policy(tasks=("classification",)))
    site.state.mkdir(mode=0o700)

    def answer(number: int) -> None:
        task = RoundTask(study, number)
        claim = claim_of(site, purpose, task, pack_task(task))
        assert claim is not None
        claim()

    for number in range(1, most + 1):
        answer(number)
    with pytest.raises(RefusedError, match=f"{most} rounds of {purpose} answered") as error:
        answer(most + 1)
    assert error.value.code is Code.POLICY


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_state_of_an_honest_study_is_measured(tmp_path: Path, kind: str) -> None:
    settings, cases = make_settings({"kind": kind, **KINDS[kind]}, 4), make_cases(3, (60, 50, 30), 4, signal=0.5)
    sites = {
        name: Site(settings, part, tmp_path / name, validation=cases["site-2"])
        for name, part in cases.items()
        if name != "site-2"
    }
    states = play(settings, sites, 8 if kind in ("mlp", "gradient-boosting") else 40)
    late = Site(settings, replace(cases["site-0"]), tmp_path / "late", validation=cases["site-2"])
    for site in (sites["site-1"], late):
        assert all(site.measure(state).estimates for state in states[1:])
