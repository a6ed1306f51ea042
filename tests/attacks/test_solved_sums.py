"""What no bound keeps from a coordinator that solves the sums of a logistic model, or the leaves of a forest.

Every state is moderate and every sum of many patients; but the sums are exact, and enough of them are equations with
one solution.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np

from msfl_common.config.feature_catalogue import FEATURES
from msfl_common.dataset import Dataset
from msfl_common.errors import RefusedError
from msfl_common.feature_models import Phase, phase_of
from tests.attacks.feature_sites import Site, going_on, play, sites_of
from tests.attacks.reading_rows import Floats, by_leaves, by_solving
from tests.feature_models import make_settings

EDSS = np.array([0, *np.arange(1, 10, 0.5)])
GRID = np.array(list(product(range(20, 61), (0.0, 1.0), EDSS)))  # age in years, sex, EDSS


def people(seed: int, number: int = 55) -> Dataset:
    """Age, sex and EDSS of a site's patients, and whether they got worse."""
    rng = np.random.default_rng(seed)
    edss = EDSS[np.minimum(rng.gamma(2, 2.4, number).astype(int), len(EDSS) - 1)]
    sex = (rng.random(number) < 0.3).astype(float)
    worse = (edss + 2 * rng.normal(size=number) > 2.5).astype(np.int64)
    values = np.column_stack([rng.integers(20, 61, number), sex, edss])
    return Dataset(tuple(FEATURES)[:3], values, worse, tuple(map(str, range(number))))


def num_read(numbers_G: Floats, cases: Dataset) -> int:
    """Patients whose row is found, as often as it is there."""
    there_G = (GRID[:, None] == cases.features_NP[None]).all(axis=2).sum(axis=1)
    return int(np.minimum(np.round(numbers_G), there_G).sum())


def test_sixteen_moderate_states_of_a_logistic_model_read_all_patients(tmp_path: Path) -> None:
    settings, cases, rng = make_settings({"kind": "logistic"}, 3), people(0), np.random.default_rng(0)
    site = Site(settings, cases, tmp_path)
    first, last = play(settings, {"site-0": site}, 1)
    sums, states, answers = site.ask(first), [last], [site.ask(last)]
    while len(states) < 15:
        direction = rng.normal(size=4)
        state = going_on(states[-1], coefficients=5 * direction[None] / np.linalg.norm(direction[:3]))
        try:
            answers.append(site.ask(state))
        except RefusedError:  # costs nothing
            continue
        states.append(state)
    assert num_read(by_solving(settings, states, answers, sums, GRID), cases) >= 50  # of 55; the outcomes stay hidden


def test_an_honest_search_for_a_logistic_model_reads_few_patients(tmp_path: Path) -> None:
    settings, cases = make_settings({"kind": "logistic"}, 3), {f"site-{seed}": people(seed) for seed in range(3)}
    sites = sites_of(settings, cases, tmp_path)
    states = play(settings, sites)
    search = [state for state in states if phase_of(state) is Phase.FIT]
    answers = [sites["site-0"].ask(state) for state in search]
    found = by_solving(settings, search, answers, sites["site-0"].ask(states[0]), GRID)
    assert num_read(found, cases["site-0"]) <= 10


def test_the_leaves_of_a_forest_read_patients_with_their_outcome(tmp_path: Path) -> None:
    """Two honest requests, with a study's default settings; so that it stays refused as long as this works."""
    settings, cases = make_settings({"kind": "random-forest"}, 3), people(0)
    site = Site(settings, cases, tmp_path)
    first, state = play(settings, {"site-0": site}, 1)
    found = by_leaves(settings, state, site.ask(state, 2)["trees"], site.ask(first), GRID)
    read = 0
    for number in range(2):
        of_class = cases.labels_N == number
        one = Dataset(cases.names, cases.features_NP[of_class], cases.labels_N[of_class], ())
        read += num_read(found[number], one)
    assert read > 20  # of 55
