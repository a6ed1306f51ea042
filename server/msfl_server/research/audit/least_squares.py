"""Rows read by a coordinator who only looks: those that would give all sums of an honest search.

The sums of a Newton search are equations whose unknowns are the rows; where there are enough of them, an ordinary
solver finds the rows. A few patients are enough to show it, and many are out of its reach: so the sites are small here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.special import expit

from msfl_common.config.study import StudyConfig
from msfl_common.errors import RefusedError
from msfl_common.feature_models import Phase, State, phase_of
from msfl_server.research.audit.finding import Finding, Measured, judged
from msfl_server.research.audit.patients import Ask, AuditSite, Cohort, design, play
from msfl_server.research.audit.rows import BOUNDS, MASKS, Rows, rows_read, sum_of

Floats = NDArray[np.float64]
NAME = "Least squares"
_STARTS = 2
_ROUNDS = 12


def audit(cohort: Cohort) -> list[Finding]:
    """The attack on sites of few patients: on bare sums, on those of all together, and on sites as they answer."""
    study, few = cohort.study, cohort.few
    bare = {name: (site.bare, len(site.training.labels_N)) for name, site in few.items()}
    search = [state for state in play(study, bare, _ROUNDS) if phase_of(state) is Phase.FIT]
    size = f"sites of {max(number for _, number in bare.values())} patients"
    without = [_read(site.bare, search, [site]) for site in few.values()]
    together = _read(sum_of([site.bare for site in few.values()]), search, list(few.values()))
    return judged(
        NAME, "Rows read", rows_read("", without, size),
        [rows_read(MASKS, [together], f"{size}, {len(few)} together"), _guarded(study, few, size)],
    )  # fmt: skip


def _guarded(study: StudyConfig, few: Mapping[str, AuditSite], size: str) -> Measured:
    answers: dict[str, list[State]] = {name: [] for name in few}

    def noting(name: str, site: AuditSite) -> Ask:
        def ask(state: State) -> State:
            answers[name].append(site.guarded(state))
            return answers[name][-1]

        return ask

    asks = {name: (noting(name, site), len(site.training.labels_N)) for name, site in few.items()}
    try:
        states = play(study, asks, _ROUNDS)
    except RefusedError as error:
        return rows_read(BOUNDS, [Rows.none(site) for site in few.values()], f"{size}, who are refused: {error}")
    search = [number for number, state in enumerate(states) if phase_of(state) is Phase.FIT]
    read = [
        _read_from([states[n] for n in search], [answers[name][n] for n in search], [site])
        for name, site in few.items()
    ]
    return rows_read(BOUNDS, read, f"{size}, answered")


def _read(ask: Ask, states: list[State], whose: Sequence[AuditSite]) -> Rows:
    return _read_from(states, [ask(state) for state in states], whose)


def _read_from(states: list[State], answers: list[State], whose: Sequence[AuditSite]) -> Rows:
    """Labels are known but for their order, which rows do not have: their numbers are in the first sums."""
    labels_N = np.sort(np.concatenate([one.training.labels_N for one in whose]))[::-1].astype(np.float64)
    settings = whose[0].settings
    true_NQ, others_NQ = (
        np.concatenate([design(settings, states[0], getattr(one, part).features_NP)[:, :-1] for one in whose])
        for part in ("training", "others")
    )
    tries = [list(from_newton_points(states, answers, len(labels_N), labels_N, seed)) for seed in range(_STARTS)]
    # Each start is a guess of the attacker's, who keeps the one of least misfit; all rows of all starts are counted.
    return Rows([row for one in tries for row in one], true_NQ, others_NQ)


def from_newton_points(
    states: list[State], answers: list[State], num_cases: int, labels_N: Floats, seed: int
) -> Floats:
    """Least squares over all sums of a search: the rows that would give them, prepared, N x Q."""
    size = states[0]["coefficients"].shape[1] - 1
    upper = np.triu_indices(size + 1)
    wanted = np.concatenate([np.concatenate([one["gradient"][0], one["curvature"][0][upper]]) for one in answers])

    def misfit(flat: Floats) -> Floats:
        inputs = np.column_stack([flat.reshape(num_cases, size), np.ones(num_cases)])
        made = []
        for state in states:
            p = expit(inputs @ state["coefficients"][0])
            made += [(p - labels_N) @ inputs, ((inputs * (p * (1 - p))[:, None]).T @ inputs)[upper]]
        return np.asarray(np.concatenate(made) - wanted)

    def slopes(flat: Floats) -> Floats:
        """Of each sum by each value of a row, sums x (N Q)."""
        inputs, unit = np.column_stack([flat.reshape(num_cases, size), np.ones(num_cases)]), np.eye(size + 1)[:, :size]
        products = inputs[:, :, None] * inputs[:, None, :]
        of_products = unit[None, :, None, :] * inputs[:, None, :, None] + inputs[:, :, None, None] * unit[None, None]
        made = []
        for state in states:
            line = state["coefficients"][0]
            p = expit(inputs @ line)
            s, turn = p * (1 - p), line[:size]
            of_gradient = (p - labels_N)[:, None, None] * unit + s[:, None, None] * inputs[:, :, None] * turn
            of_curvature = (s * (1 - 2 * p))[:, None, None, None] * products[..., None] * turn
            of_curvature = (of_curvature + s[:, None, None, None] * of_products)[:, upper[0], upper[1]]
            made += [one.transpose(1, 0, 2).reshape(one.shape[1], -1) for one in (of_gradient, of_curvature)]
        return np.concatenate(made)

    start = np.random.default_rng(seed).normal(size=num_cases * size)
    best = least_squares(misfit, start, jac=slopes, method="trf", xtol=1e-15, ftol=1e-15, gtol=1e-15, max_nfev=300)
    return np.asarray(best.x.reshape(num_cases, size))
