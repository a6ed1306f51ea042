"""Attacks that read patients' rows out of sums, as a coordinator who chooses what it asks would carry them out.

Those that `msfl-server audit` carries out, too, stand there (`msfl_server.research.audit`).

Legend: N cases, P inputs, M prepared inputs with the intercept.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls
from scipy.special import expit

from msfl_common.config.classification import Classification
from msfl_common.errors import RefusedError
from msfl_common.feature_models import State
from msfl_common.feature_models.preparation import prepare
from msfl_common.feature_models.trees import FEATURE, RIGHT, ROOT, THRESHOLD, VALUES, to_grid
from msfl_server.research.audit.bisection import at_point
from tests.feature_models import design

Floats = NDArray[np.float64]
Oracle = Callable[[State], State]  # a site: it answers, or raises RefusedError
_TINY = 1e-10


def by_hinge(ask: Oracle, start: State, direction_Q: Floats) -> list[Floats]:
    """The curvature of a squared hinge counts the cases short of the margin, with slopes of any size."""

    def beyond(threshold: float) -> Floats | None:
        try:  # signs turn with the class; those of the other class are short on the other side
            answer = ask(start | at_point(np.append(direction_Q, -threshold)[None]))
        except RefusedError:
            return None
        return answer["curvature"][0][-1] / 2 if answer["curvature"].any() else None

    steps = np.linspace(-6, 6, 100)
    sums = [beyond(float(step)) for step in steps]
    found = []
    for one, other in pairwise(sums):
        if one is not None and other is not None and abs(round(float((other - one)[-1]))) == 1:
            found.append(((other - one) / (other - one)[-1])[:-1])
    return found


def by_two_curvatures(answers: list[State]) -> list[Floats]:
    """Who passed the margin alone between two rounds of an honest search: a matrix of rank 1 is his row."""
    found = []
    for number, one in enumerate(answers):
        for other in answers[number + 1 :]:
            for before, after in zip(one["curvature"], other["curvature"], strict=True):
                change = (after - before) / 2
                if round(abs(float(change[-1, -1]))) == 1:
                    found.append((change[-1] / change[-1, -1])[:-1])
    return found


def by_imprinting(ask: Oracle, start: State, num_rounds: int, decay: float, seed: int) -> list[Floats]:
    """Units of a perceptron that each answer to the patients beyond a threshold, and die of the first batch.

    All patients but those of one class are predicted without a doubt, and give no gradient; the others push every unit
    that sees them out of all patients' reach. The mean is moved so that inputs are above 0, where none comes back.
    What two neighbours moved by differs by the patients between their thresholds, alone: weights over bias is a row.

    Args:
        ask: the site; it answers another batch in each round.
        start: a perceptron's state after the first sums, with one hidden layer and two classes.
        num_rounds: to ask.
        decay: what a round of weight decay leaves of a weight.
        seed: of directions and thresholds.
    """
    rng, found = np.random.default_rng(seed), []
    num_hidden, num_prepared = start["layer0_weight"].shape
    lifted = start | {"mean": start["mean"] - 8 * start["spread"] / np.diag(start["projection"])}
    for number in range(num_rounds):
        direction = rng.normal(size=num_prepared)
        direction /= np.linalg.norm(direction)
        thresholds = 8 * float(direction @ start["spread"]) + np.sort(rng.uniform(-3, 3, num_hidden))
        sign = np.array([[1.0], [-1.0]]) * (-1) ** number
        layers = {
            "layer0_weight": _TINY * np.tile(direction, (num_hidden, 1)),
            "layer0_bias": -_TINY * thresholds,
            "layer1_weight": np.tile(-sign * _TINY / 1000, (1, num_hidden)),
            "layer1_bias": -20 * sign[:, 0],
        }
        answer = ask(lifted | layers)
        weights, biases = (
            np.diff(answer[name] - decay * layers[name], axis=0) for name in ("layer0_weight", "layer0_bias")
        )
        alone = np.abs(biases) > 1e-2 * np.abs(biases).max()
        found += list(weights[alone] / biases[alone][:, None])
    return found


def by_solving(
    settings: Classification, states: list[State], answers: list[State], first: State, grid_GP: Floats
) -> Floats:
    """How many patients have each row of a grid, from exact sums at moderate states, by non-negative least squares.

    Curvature, and gradient and loss less what the outcomes add (their sums are told first), are linear in the numbers.
    Few patients on a fine grid are found from twice as many numbers.

    Args:
        settings: of a logistic model of two classes.
        states: in its search.
        answers: to them.
        first: the first sums.
        grid_GP: every row that a patient may have.
    """
    rows, wanted = [], []
    upper = np.triu_indices(grid_GP.shape[1] + 1)
    for state, answer in zip(states, answers, strict=True):
        inputs, line = design(settings, state, grid_GP), state["coefficients"][0]
        of_worse = design(settings, state, first["sums"][1:] / first["counts"][1])[0] * first["counts"][1]
        p = expit(inputs @ line)
        rows += [*(inputs[:, upper[0]] * inputs[:, upper[1]] * (p * (1 - p))[:, None]).T]
        rows += [*(inputs * p[:, None]).T, np.logaddexp(0, inputs @ line)]
        wanted += [*answer["curvature"][0][upper], *(answer["gradient"][0] + of_worse)]
        wanted.append(float(answer["loss"]) + float(of_worse @ line))
    made = np.stack(rows)
    largest = np.abs(made).max(axis=1)
    return np.asarray(nnls(made / largest[:, None], np.array(wanted) / largest, maxiter=50_000)[0])


def by_leaves(settings: Classification, state: State, trees_R: Floats, first: State, grid_GP: Floats) -> Floats:
    """How many patients of either class have each row of a grid, 2 x G, from the leaves of a forest and the first sums.

    A leaf's share says that so many of the patients in a box are of a class: an equation that is linear in the numbers.
    """
    grid_GQ, size = to_grid(prepare(settings, state, grid_GP), state["spread"]), len(grid_GP)
    boxes: dict[bytes, Floats] = {}

    def visit(row: int, inside_G: NDArray[np.bool_]) -> None:
        if trees_R[row, FEATURE] < 0:
            shares = trees_R[row, VALUES:]
            boxes[inside_G.tobytes()] = np.concatenate([-shares[1] * inside_G, shares[0] * inside_G])
            return
        goes_left_G = grid_GQ[:, int(trees_R[row, FEATURE])] < trees_R[row, THRESHOLD]
        visit(row + 1, inside_G & goes_left_G)
        visit(row + int(trees_R[row, RIGHT]), inside_G & ~goes_left_G)

    for root in np.flatnonzero(trees_R[:, ROOT]):
        visit(int(root), np.ones(size, dtype=bool))
    rows, wanted = [*boxes.values()], [0.0] * len(boxes)
    squares_KP = first["squares"] + first["sums"] ** 2 / first["counts"][:, None]
    for number in range(2):
        is_of_class = np.repeat(np.arange(2) == number, size)
        for column, told in (
            (np.ones((size, 1)), first["counts"][number : number + 1]),
            (grid_GP, first["sums"][number]),
            (grid_GP**2, squares_KP[number]),
        ):
            rows += [*(np.tile(column, (2, 1)) * is_of_class[:, None]).T]
            wanted += [*told]
    made = np.stack(rows)
    largest = np.abs(made).max(axis=1)
    return np.asarray(nnls(made / largest[:, None], np.array(wanted) / largest, maxiter=50_000)[0]).reshape(2, size)
