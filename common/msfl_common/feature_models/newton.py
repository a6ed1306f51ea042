"""Newton's method on sums: the next coefficients, from loss, gradient and curvature at the last ones.

What is minimised is scikit-learn's: C times the sum of the losses, and the penalty of all coefficients but intercepts:

    l2           |w|^2 / 2
    l1           |w|_1
    elastic-net  r |w|_1 + (1 - r) |w|^2 / 2

A step goes to the minimum of the quadratic that the sums give, with the l1 part as it is (proximal Newton; Lee, Sun and
Saunders 2014), found by coordinate descent. Whether it went down shows in the next round; if not, half the step is
tried. The search ends with a step that promises less than 1e-9 of what is minimised, or after `MAX_STEPS` rounds.

Legend: V scores, M inputs with the intercept, L coefficients of one block.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass

import numpy as np

from msfl_common.feature_models.state import MAX_STEPS, Floats, State

_TOLERANCE = 1e-9
_SUFFICIENT = 1e-4  # Armijo: share of the promised decrease that a step must bring
_LEAST_STEP = 2.0**-12
_JITTER = 1e-9  # of the mean curvature, added to a step's curvature alone: it moves no minimum
_MAX_SWEEPS = 1000


@dataclass(frozen=True)
class Search:
    """The array `coefficients_search` or `link_search` of a state.

    Attributes:
        objective: at the accepted coefficients.
        decrease: what the whole step promises; below 0.
        step: share of it that was taken last; 0 before the first.
        cases: behind the objective; with others it could not be compared.
        rounds: asked so far.
    """

    objective: float
    decrease: float
    step: float
    cases: float
    rounds: float

    @property
    def array(self) -> Floats:
        """As it is kept in a state."""
        return np.array(astuple(self))


@dataclass(frozen=True)
class Penalty:
    """How coefficients are held small: l1 |w|_1 + l2 |w|^2 / 2, and C before the losses."""

    l1: float
    l2: float
    loss_weight: float

    def smooth(self, coefficients_VM: Floats) -> float:
        """The l2 part."""
        return self.l2 / 2 * float((coefficients_VM[:, :-1] ** 2).sum())

    def absolute(self, coefficients_VM: Floats) -> float:
        """The l1 part."""
        return self.l1 * float(np.abs(coefficients_VM[:, :-1]).sum())


def next_step(penalty: Penalty, state: State, sums: State, num_cases: int, name: str) -> tuple[State, bool]:
    """The state with the next coefficients to ask for, and whether these are the last.

    Args:
        penalty: of the coefficients, and C.
        state: holds the coefficients that the sums are of, and the search so far.
        sums: loss, gradient and curvature, of all sites.
        num_cases: cases in them.
        name: what is searched, `coefficients` or `link`.
    """
    search, tried_VM = Search(*map(float, state[f"{name}_search"])), state[name]
    objective = penalty.loss_weight * float(sums["loss"]) + penalty.smooth(tried_VM) + penalty.absolute(tried_VM)
    is_comparable = search.step > 0 and search.cases == num_cases
    rounds = search.rounds + 1
    went_down = objective <= search.objective + _SUFFICIENT * search.step * search.decrease
    if is_comparable and not went_down:
        step = search.step / 2
        is_over = step < _LEAST_STEP or rounds >= MAX_STEPS
        shorter_VM = state[f"{name}_accepted"] + (0.0 if is_over else step) * state[f"{name}_direction"]
        halved = Search(search.objective, search.decrease, step, search.cases, rounds)
        return state | {name: shorter_VM, f"{name}_search": halved.array}, is_over
    direction_VM, decrease = _direction(tried_VM, sums, penalty)
    is_over = -decrease <= _TOLERANCE * max(1.0, abs(objective)) or rounds >= MAX_STEPS
    after = {
        name: tried_VM + direction_VM,
        f"{name}_accepted": tried_VM,
        f"{name}_direction": direction_VM,
        f"{name}_search": Search(objective, decrease, 1.0, float(num_cases), rounds).array,
    }
    return state | after, is_over


def _direction(tried_VM: Floats, sums: State, penalty: Penalty) -> tuple[Floats, float]:
    """The whole step from the coefficients tried, and the decrease that it promises."""
    from scipy.linalg import cho_factor, cho_solve

    blocks = len(sums["curvature"])
    is_penalised_VM = np.ones_like(tried_VM)
    is_penalised_VM[:, -1] = 0.0
    gradient_VM = penalty.loss_weight * sums["gradient"] + penalty.l2 * tried_VM * is_penalised_VM
    steps = []
    for curvature_LL, gradient_L, start_L, weight_L in zip(
        penalty.loss_weight * sums["curvature"],
        gradient_VM.reshape(blocks, -1),
        tried_VM.reshape(blocks, -1),
        is_penalised_VM.reshape(blocks, -1),
        strict=True,
    ):
        jitter = _JITTER * max(float(np.diag(curvature_LL).mean()), 1e-12)
        curved_LL = curvature_LL + np.diag(penalty.l2 * weight_L + jitter)
        if penalty.l1:
            steps.append(minimise_with_l1(curved_LL, gradient_L, start_L, penalty.l1 * weight_L) - start_L)
        else:
            steps.append(-cho_solve(cho_factor(curved_LL), gradient_L))
    direction_VM = np.stack(steps).reshape(tried_VM.shape)
    change = penalty.absolute(tried_VM + direction_VM) - penalty.absolute(tried_VM)
    return direction_VM, float((gradient_VM * direction_VM).sum()) + change


def minimise_with_l1(curvature_LL: Floats, gradient_L: Floats, start_L: Floats, l1_L: Floats) -> Floats:
    """The w that minimises  g'(w - w0) + (w - w0)' H (w - w0) / 2 + sum of l1 |w|,  for w0 the start.

    Coordinate descent finds which coefficients are 0; with these and the signs known the rest is a linear system, and
    the minimum is reached when its solution keeps them.
    """
    w_L, slope_L = start_L.copy(), gradient_L.copy()  # slope of the quadratic at w
    for _ in range(_MAX_SWEEPS):
        for number, diagonal in enumerate(np.diag(curvature_LL)):
            wanted = w_L[number] - slope_L[number] / diagonal
            after = np.sign(wanted) * max(abs(wanted) - l1_L[number] / diagonal, 0.0)
            if after != w_L[number]:
                slope_L += curvature_LL[:, number] * (after - w_L[number])
                w_L[number] = after
        if (exact_L := _with_signs_of(w_L, curvature_LL, gradient_L, start_L, l1_L)) is not None:
            return exact_L
    return w_L


def _with_signs_of(
    w_L: Floats, curvature_LL: Floats, gradient_L: Floats, start_L: Floats, l1_L: Floats
) -> Floats | None:
    """The minimum if it has the signs and zeros of `w_L`, else None."""
    from scipy.linalg import cho_factor, cho_solve

    free_L = (w_L != 0) | (l1_L == 0)
    right_L = curvature_LL @ start_L - gradient_L - l1_L * np.sign(w_L)
    exact_L = np.zeros_like(w_L)
    exact_L[free_L] = cho_solve(cho_factor(curvature_LL[np.ix_(free_L, free_L)]), right_L[free_L])
    slope_L = gradient_L + curvature_LL @ (exact_L - start_L)
    keeps_signs = np.array_equal(np.sign(exact_L[l1_L > 0]), np.sign(w_L[l1_L > 0]))
    holds_zeros = (np.abs(slope_L[~free_L]) <= l1_L[~free_L] * (1 + 1e-9)).all()
    return exact_L if keeps_signs and holds_zeros else None
