"""Which way a search may take, and how far it may go: states of Newton's method that a coordinator sends.

A search goes on from the point that was asked last to one on the line that it names, its count of rounds rising;
whoever missed rounds takes the search up where it is, within the same bounds. See `state_bounds`.

Legend: see `msfl_common.feature_models`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from msfl_client.disclosure.state_bounds import expect, expect_same, expect_spread
from msfl_common.feature_models import Phase, State, phase_of
from msfl_common.feature_models.state import MAX_STEPS

Floats = NDArray[np.float64]
MOST_SLOPE = 20.0  # norm of a score's coefficients, each per standard deviation of the site's own inputs


def expect_moderate(inputs_NM: Floats, state: State, phase: Phase) -> None:
    """Bound slopes and scores in units of the site's own patients."""
    coefficients_VM = state["coefficients"]
    slopes_V = np.sqrt(((coefficients_VM[:, :-1] * inputs_NM[:, :-1].std(axis=0)) ** 2).sum(axis=1))
    expect(
        bool((slopes_V <= MOST_SLOPE).all()),
        f"coefficients: {slopes_V.max():.3g} per standard deviation of this site's inputs, at most {MOST_SLOPE:g}",
    )
    scores_NV = inputs_NM @ coefficients_VM.T
    expect_spread("scores", scores_NV)
    if phase >= Phase.LINK and "link" in state:
        expect_spread("linked scores", scores_NV * state["link"][:, 0] + state["link"][:, 1])


def expect_on_line(state: State, first: State, last: State | None, name: str) -> None:
    """A search stands still, begins, takes a whole step from the point asked last, or half of the step before."""
    names = name, f"{name}_accepted", f"{name}_direction", f"{name}_search"
    is_link, phase = name == "link", phase_of(state)
    if is_link and phase is Phase.FIT:
        expect_same(state, first, names, "the link is searched before the coefficients are found")
        return
    here, accepted, direction, search = (state[one] for one in names)
    step, rounds = search[2], search[4]
    expect(rounds % 1 == 0 and 0 <= rounds <= MAX_STEPS, f"{name}: {rounds:g} rounds, at most {MAX_STEPS}")
    if rounds == 0:
        expect_same(state, first, names, f"the search for {name} does not begin where the study's does")
        return
    is_over = not is_link and phase is Phase.LINK  # a search that ends without a step down stays where it stood
    on_line = np.array_equal(here, accepted + step * direction) or (is_over and np.array_equal(here, accepted))
    expect(0 < step <= 1 and float(np.log2(step)) % 1 == 0 and on_line, f"{name}: not on the line of the search")
    if last is None or phase_of(last) is Phase.PREPARE:
        return
    before = last[names[3]][4]
    if is_over and phase_of(last) is Phase.LINK:
        expect_same(state, last, names, f"{name} changed after their search")
        return
    expect(rounds > before, f"{name}: round {rounds:g} of the search after round {before:g}")
    if rounds == before + 1:
        is_whole = step == 1 and np.array_equal(accepted, last[name])
        is_half = (
            step == last[names[3]][2] / 2
            and np.array_equal(accepted, last[names[1]])
            and np.array_equal(direction, last[names[2]])
        )
        expect(bool(is_whole or is_half), f"{name}: no step from the point that was asked last")
