"""Rows of patients solved out of many moderate answers together: sums of chosen states, honest searches, metrics.

Each value lies on a coarse grid (age in years, sex, half steps of the EDSS), so that how many patients have which row
is a sparse solution of few linear equations.

Legend: G rows of the grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from scipy.optimize import nnls
from scipy.special import expit

from msfl_client.rounds.site_context import open_context
from msfl_common.dataset import Dataset
from msfl_common.errors import Code, RefusedError
from msfl_common.feature_models import Phase, State, phase_of
from tests.attacks.deployed_site import Deployed, study_of, tell_nobody
from tests.attacks.feature_sites import going_on
from tests.attacks.reading_rows import Floats, by_solving
from tests.feature_models import design

GRID = np.array(list(product(range(20, 61), (0.0, 1.0), np.arange(0, 10, 0.5))))


@dataclass(frozen=True)
class Read:
    """What an attack came to.

    Attributes:
        asked: states that were answered.
        right: rows found that patients have, as often as they have them; some are guessed right by chance.
        patients: how many there are.
    """

    asked: int
    right: int
    patients: int


def read_by_states(site: Deployed, num_states: int, seed: int) -> Read:
    """A coordinator that chooses moderate states until it has enough, or is refused."""
    rng, cases = np.random.default_rng(seed), site.training
    try:
        before, first = site.play(1)
        states, answers = [before[-1]], [site.ask(before[-1])]
        for _ in range(8 * num_states):
            if len(states) == num_states or site.round == 18:
                break
            line = rng.normal(size=4) * [1, 1, 1, 0.5]
            state = going_on(states[-1], coefficients=3 * line[None] / np.linalg.norm(line[:3]))
            try:
                answers.append(site.ask(state))
                states.append(state)
            except RefusedError as error:
                if error.code is Code.BUDGET_SPENT:
                    break
                site.round -= 1
    except RefusedError:
        return Read(0, 0, len(cases.labels_N))
    found = by_solving(site.settings, states, answers, first[0], GRID)
    return Read(len(states), num_right(found, cases), len(cases.labels_N))


def read_by_searches(sites: Sequence[Deployed]) -> Read:
    """A coordinator that only watches: honest searches with other penalties, in studies of the same patients."""
    states: list[State] = []
    answers: list[State] = []
    first: list[State] = []
    cases = sites[0].training
    for site in sites:
        try:
            asked, told = site.play()
        except RefusedError:
            continue
        first = first or told
        search = [pair for pair in zip(asked, told, strict=False) if phase_of(pair[0]) is Phase.FIT]
        states += [state for state, _ in search]
        answers += [answer for _, answer in search]
    if not states:
        return Read(0, 0, len(cases.labels_N))
    found = by_solving(sites[0].settings, states, answers, first[0], GRID)
    return Read(len(states), num_right(found, cases), len(cases.labels_N))


def read_by_metrics(site: Deployed, start: State, num_models: int, seed: int) -> Read:
    """Brier score and confusion matrix of moderate models that are made up, in as many studies as that needs.

    Args:
        site: whose validation patients are read.
        start: a state of a logistic model after the first sums, of whatever patients.
        num_models: to ask.
        seed: of the models.
    """
    rng, cases, size = np.random.default_rng(seed), validation_cases(site), len(GRID)
    of_class = np.repeat(np.eye(2), size, axis=1)
    rows, wanted = [*of_class], [float((cases.labels_N == label).sum()) for label in range(2)]
    asked, number_of_study = 0, 0
    for _ in range(2 * num_models):
        if asked == num_models:
            break
        if asked % 15 == 0:
            number_of_study += 1
            site = replace(site, study=study_of(f"more-{number_of_study}"), round=0)
        line = rng.normal(size=3)
        slope = rng.choice([1, 3, 8, 14])
        line = np.append(slope * line / np.linalg.norm(line), 0.7 * slope * rng.normal())
        state = going_on(start, coefficients=line[None])
        try:
            told = site.measure(state)
        except RefusedError as error:
            if error.code is Code.BUDGET_SPENT:
                break
            site.round -= 1
            continue
        asked += 1
        p_G = expit(design(site.settings, state, GRID) @ line)
        rows.append(np.concatenate([p_G**2, (1 - p_G) ** 2]))
        wanted.append(told.estimates["brier"].mean * len(cases.labels_N))
        if told.confusion is not None and told.confusion.any():
            rows += [row * np.tile(p_G >= 0.5, 2) for row in of_class]
            wanted += [float(told.confusion[label, 1]) for label in range(2)]
    found = nnls(np.stack(rows), np.array(wanted), maxiter=50_000)[0].reshape(2, size)
    right = sum(num_right(found[label], _of_class(cases, label)) for label in range(2))  # with the outcome
    return Read(asked, right, len(cases.labels_N))


def validation_cases(site: Deployed) -> Dataset:
    """Cases that the study validates on."""
    learner = open_context(site.site, site.study, tell_nobody).learner
    cases: Dataset = learner._cases(learner._data.splits.validation)  # type: ignore[attr-defined]
    return cases


def num_right(numbers_G: Floats, cases: Dataset) -> int:
    """Patients whose row is found, as often as it is there."""
    there_G = (GRID[:, None] == cases.features_NP[None]).all(axis=2).sum(axis=1)
    return int(np.minimum(np.round(numbers_G), there_G).sum())


def _of_class(cases: Dataset, label: int) -> Dataset:
    is_of = cases.labels_N == label
    return Dataset(cases.names, cases.features_NP[is_of], cases.labels_N[is_of], ())
