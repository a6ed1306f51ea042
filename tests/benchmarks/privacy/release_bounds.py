"""Rows read out of what a deployed site answers, without its bounds and with them, and what they cost a study."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from msfl_common.dataset import Dataset
from msfl_common.errors import RefusedError
from msfl_common.feature_models import Phase, State, phase_of, predict_proba
from msfl_server.research.audit.bisection import by_coefficients
from msfl_server.research.audit.least_squares import from_newton_points
from msfl_server.research.audit.rows import recovered
from tests.attacks.deployed_site import UNBOUNDED, Deployed, people, study_of, write_people
from tests.attacks.feature_sites import DIRECTION, INPUTS, SIZES, Site, bare_logistic, play, sites_of, unguarded
from tests.attacks.solving import GRID, Read, num_right, read_by_metrics, read_by_searches, read_by_states
from tests.benchmarks.figure import Figure
from tests.feature_models import design, make_cases, make_settings

SEEDS = (4101, 4102)
PENALTIES = (1.0, 0.1, 10.0, 0.3, 3.0, 0.03)
Policy = Mapping[str, Any]


def measure() -> list[Figure]:
    """Rows recovered by each attack, and AUROC with and without the bounds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        return [_bisection(folder), *_searches(folder), *_chosen(folder), *_metrics(folder), *_honest(folder)]


def _site(folder: Path, name: str, number: int, seed: int, policy: Policy, kind: str = "logistic") -> Deployed:
    place = folder / f"{name}-{seed}-{len(policy)}" / "bids"
    if not place.exists():
        write_people(place, people(seed, number))
    return Deployed(place, study_of(kind=kind), policy)


def _bisection(folder: Path) -> Figure:
    """Huge slopes, as PRIVACY has it: the bare sums, and the site."""
    settings, cases = make_settings({"kind": "logistic"}, INPUTS), make_cases(SEEDS[0], SIZES, INPUTS, signal=0.6)
    sites = sites_of(settings, cases, folder / "bisection")
    state = play(settings, sites, 1)[-1]
    rows = design(settings, state, cases["site-0"].features_NP)[:, :-1]
    before = recovered(by_coefficients(bare_logistic(settings, cases["site-0"]), state, DIRECTION), rows)
    after = recovered(by_coefficients(sites["site-0"].ask, state, DIRECTION), rows)
    return _rows("active bisection", before, after, 55, "55 patients, 6 inputs")


def _searches(folder: Path) -> list[Figure]:
    """Least squares over one honest search, and solving over six with other penalties."""
    how = "9 patients, 8 inputs, one Newton search, 2 starts, best of them"
    settings, cases = make_settings({"kind": "logistic"}, 8), make_cases(3, (9, 40, 40), 8)
    states = [one for one in unguarded(settings, cases) if phase_of(one) is Phase.FIT]
    answers = [bare_logistic(settings, cases["site-0"])(one) for one in states]
    labels = np.sort(cases["site-0"].labels_N)[::-1].astype(np.float64)
    rows = design(settings, states[0], cases["site-0"].features_NP)[:, :-1]
    before = max(recovered(list(from_newton_points(states, answers, 9, labels, seed)), rows) for seed in range(2))
    figures = [_rows("passive least squares", before, _answered(Site(settings, cases["site-0"], folder)), 9, how)]
    for seed in SEEDS:
        reads = []
        for policy in (UNBOUNDED, {}):
            site = _site(folder, "searches", 200, seed, policy)
            studies = [study_of(f"s{n}", model={"inverse_strength": value}) for n, value in enumerate(PENALTIES)]
            reads.append(read_by_searches([Deployed(site.folder, study, policy) for study in studies]))
        figures.append(_solved(f"six honest searches (seed {seed})", *reads))
    return figures


def _answered(site: Site) -> int:
    """Rows of a site that answers; none of one that does not."""
    try:
        site.ask(site.learner.expected)
    except RefusedError:
        return 0
    return site.learner.num_train_cases


def _chosen(folder: Path) -> list[Figure]:
    figures = []
    for seed in SEEDS:
        reads = [read_by_states(_site(folder, "chosen", 200, seed, policy), 15, seed) for policy in (UNBOUNDED, {})]
        figures.append(_solved(f"chosen states (seed {seed})", *reads))
    return figures


def _metrics(folder: Path) -> list[Figure]:
    figures = []
    for seed in SEEDS:
        bare = _site(folder, "metrics", 100, seed, UNBOUNDED)
        start = bare.play(1)[0][-1]
        reads = [
            read_by_metrics(_site(folder, "metrics", 100, seed, policy), start, 60, seed) for policy in (UNBOUNDED, {})
        ]
        figures.append(_solved(f"metrics of chosen models (seed {seed})", *reads, has_outcome=True))
    return figures


def _honest(folder: Path) -> list[Figure]:
    """AUROC on people whom nobody learned from."""
    figures = []
    for kind in ("logistic", "lda", "naive-bayes"):
        pairs: list[tuple[float, float]] = []
        for seed in range(4200, 4205):
            test = people(seed + 1000, 2000)
            scores = []
            for policy in (UNBOUNDED, {}):
                site = _site(folder, f"honest-{kind}", 240, seed, policy, kind)
                scores.append(_auroc(site, site.play()[0][-1], test))
            pairs.append((scores[0], scores[1]))
        before, after = np.array(pairs).mean(axis=0)
        how = "a deployed site of 240 patients, half of whom train, 3 inputs, 5 seeds, 2000 others to test"
        figures.append(
            Figure(
                f"AUROC lost to the budget: {kind}",
                float(before - after),
                "",
                0.002,
                "at_most",
                f"{before:.4f} without, {after:.4f} with",
                how,
            )
        )
    return figures


def _auroc(site: Deployed, state: State, test: Dataset) -> float:
    probabilities = predict_proba(site.settings, state, test.features_NP)[:, 1]
    return float(roc_auc_score(test.labels_N, probabilities))


def _solved(name: str, before: Read, after: Read, has_outcome: bool = False) -> Figure:
    """Rows that are right among as many that are named, against who names the commonest rows and asks nobody."""
    by_chance = _guessed(after.patients, has_outcome)
    how = (
        f"{after.asked} answers against {before.asked} without bounds, {after.patients} patients, values on a grid of "
        "1640 rows; as many rows are named as there are patients, most of them nobody's; target: what 95% of guesses "
        "of as many of the commonest rows come to, whoever is at the site"
    )
    return Figure(f"rows read by {name}", after.right, "", by_chance, "at_most", f"{before.right} unbounded", how)


@cache
def _guessed(patients: int, has_outcome: bool) -> float:
    """Rows that who knows how the disease is spread gets right, without any answer: 95th percentile of 40 sites."""
    many = people(999, 200_000)
    classes = (0, 1) if has_outcome else (None,)
    commonest = {label: _commonest(_of(many, label)) for label in classes}
    right = []
    for seed in range(40):
        there = people(7000 + seed, patients)
        found = 0
        for label in classes:
            cases = _of(there, label)
            named = np.zeros(len(GRID))
            named[commonest[label][: len(cases.labels_N)]] = 1
            found += num_right(named, cases)
        right.append(found)
    return float(np.percentile(right, 95))


def _commonest(cases: Dataset) -> NDArray[np.intp]:
    """Rows of the grid, the most frequent first."""
    places = {tuple(row): place for place, row in enumerate(GRID)}
    numbers = np.bincount([places[tuple(row)] for row in cases.features_NP], minlength=len(GRID))
    return np.argsort(-numbers, kind="stable")


def _of(cases: Dataset, label: int | None) -> Dataset:
    if label is None:
        return cases
    is_of = cases.labels_N == label
    return Dataset(cases.names, cases.features_NP[is_of], cases.labels_N[is_of], ())


def _rows(name: str, before: int, after: int, patients: int, how: str) -> Figure:
    return Figure(f"rows read by {name}", after, "", 0, "at_most", f"{before} of {patients} from the bare sums", how)
