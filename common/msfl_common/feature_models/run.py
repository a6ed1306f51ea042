"""A run of a study's model of features: where it starts, what it asks for, when it ends, and what it cannot be.

Legend: see the package.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from msfl_common.errors import RunError, UpdateError
from msfl_common.feature_models.first_sums import add_up, fit_preparation
from msfl_common.feature_models.model import Answer
from msfl_common.feature_models.registry import model_of
from msfl_common.feature_models.settings import Settings, num_columns, num_groups, num_prepared_inputs
from msfl_common.feature_models.state import Phase, State, phase_of, scalar


def first_state(settings: Settings, seed: int) -> State:
    """The state that a run starts from: nothing known of any case. Every later one has the same names and shapes.

    Args:
        settings: what is predicted, from what and by which model.
        seed: what the first layers of a perceptron and the landmarks of a kernel are drawn from.

    Raises:
        UnknownModelError: the study has no model of features.
    """
    model, num_prepared = model_of(settings), num_prepared_inputs(settings)
    num_classes, num_inputs = num_groups(settings), len(settings.inputs)
    state = {
        "phase": scalar(Phase.PREPARE),
        "counts": np.zeros(num_classes),  # training cases of each class; one figure of a number
        "mean": np.zeros(num_inputs),  # of each input, after subject scaling
        "projection": np.zeros((num_inputs, num_prepared)),  # scaling, selection and components in one
        "spread": np.ones(num_prepared),  # standard deviation of each prepared input; 1 for a constant
    }
    return state | model.first_arrays(settings, num_prepared, seed)


def contribution_like(settings: Settings, state: State) -> State:
    """Names and shapes of what a site must answer to a state; a first axis of 0 may have any length there.

    Raises:
        UnknownModelError: the study has no model of features.
    """
    model, phase = model_of(settings), phase_of(state)
    if phase is Phase.DONE:
        raise AssertionError("a finished model asks for nothing")
    if phase is not Phase.PREPARE:
        return model.answer_like(state)
    num_classes, columns = num_groups(settings), num_columns(settings)
    like = {"counts": np.zeros(num_classes)}
    like |= {name: np.zeros((num_classes, columns)) for name in ("sums", "squares")}
    if matrices := model.num_scatters(settings):
        like["scatter"] = np.zeros((matrices, columns, columns))
    return like


def num_rounds_needed(settings: Settings) -> int | None:
    """Rounds after which a model is certainly finished; None where more rounds always add something.

    Raises:
        UnknownModelError: the study has no model of features.
    """
    return model_of(settings).num_rounds_needed


def is_finished(settings: Settings, state: State) -> bool:
    """Whether no further round would change the state; never for averaging and boosting.

    Raises:
        UnknownModelError: the study has no model of features.
    """
    model_of(settings)
    return phase_of(state) is Phase.DONE


def next_state(settings: Settings, state: State, answers: Sequence[Answer]) -> State:
    """The state after a round; the one that came is left as it is.

    Args:
        settings: what is predicted, from what and by which model.
        state: what was answered to.
        answers: of the sites in their alphabetical order, or one of all; with the arrays of `contribution_like`.

    Raises:
        UnknownModelError: the study has no model of features.
        UpdateError: trees that are none; the line names the site.
        RunError: a class without a case, or a fit that went beyond what numbers hold.
    """
    model = model_of(settings)
    if phase_of(state) is Phase.PREPARE:
        sums = add_up(settings, answers[0].arrays)
        prepared = state | fit_preparation(settings, sums)
        after = prepared | model.after_first_sums(settings, prepared, sums)
    else:
        after = model.next_state(state, answers)
    for name, value in after.items():
        if not np.isfinite(value).all():
            raise RunError(f"{name}: not finite after the sites' sums; scale the inputs, or penalise more")
    return after


def check_state(settings: Settings, state: State) -> None:
    """Refuse a state that the study's model cannot be in.

    Raises:
        UnknownModelError: the study has no model of features.
        UpdateError: other names, another shape, or a value that no sums of cases can have given.
    """
    model, expected = model_of(settings), first_state(settings, 0)
    phase = state.get("phase", np.array(np.nan))
    if phase.shape != () or float(phase) not in {float(known) for known in Phase}:
        raise UpdateError(f"phase: expected one of {', '.join(str(int(known)) for known in Phase)}, found {phase}")
    no_link = Phase(int(phase)) is Phase.LINK and "link_search" not in expected
    if no_link or (Phase(int(phase)) is Phase.FIT and model.num_rounds_needed == 1):
        raise UpdateError(f"phase: {model.kind} has no such phase")
    if set(state) != set(expected):
        raise UpdateError(f"expected {len(expected)} arrays; they differ in {sorted(set(state) ^ set(expected))[:3]}")
    for name, like in expected.items():
        value, free = state[name], like.shape[:1] == (0,)
        if value.dtype != np.float64 or value.ndim != like.ndim or value.shape[free:] != like.shape[free:]:
            raise UpdateError(f"{name}: expected float64{like.shape}, found {value.dtype}{value.shape}")
        if not np.isfinite(value).all():
            raise UpdateError(f"{name}: {int((~np.isfinite(value)).sum())} values are not finite")
        is_positive = name in model.above_zero or (name == "counts" and phase > Phase.PREPARE)
        if is_positive and (value <= 0).any():
            raise UpdateError(f"{name}: expected figures above 0, found {value.min():g}")
    model.check_arrays(state)
