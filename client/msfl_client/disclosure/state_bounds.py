"""Whether a state that a coordinator sends may be asked of this site: it follows from the last, and nothing is huge.

Sums at arbitrary states are counting queries: with slopes of 1e9 a sum of probabilities says how many patients lie
beyond a threshold, and a threshold that moves between requests reads off every row. So:

- the first state is the study's own, bit for bit; what the first sums fixed (means, scales, components, counts) stays;
- a search goes on as Newton's does: from the point that was asked last to one on the line that it names, its count of
  rounds rising; whoever missed rounds takes the search up where it is, within the same bounds;
- trees are added to those that were there;
- prepared inputs, scores and slopes are bounded in units of the site's own patients.

A metric of a state is a counting query, too: what is measured is held to what the first sums fixed, and bounded.

Legend: see `msfl_common.feature_models`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from msfl_common.config.classification import BoostedTrees, Classification, KernelModel
from msfl_common.errors import Code, RefusedError
from msfl_common.feature_models import Phase, State, first_state, phase_of
from msfl_common.feature_models.kernels import kernel_map
from msfl_common.feature_models.linear import design
from msfl_common.feature_models.predict import boosted_scores
from msfl_common.feature_models.preparation import prepare
from msfl_common.feature_models.state import MAX_STEPS

Floats = NDArray[np.float64]
# Of n among N patients, rms about the common mean / common deviation is at most the root of N / n.
MOST_RMS = 10.0  # of the site's prepared inputs about the study's mean, in the study's deviations: n / N above 1%
MOST_SPREAD = 10.0  # standard deviation of the scores of the site's patients, and the most that their mean is off 0
MOST_SLOPE = 20.0  # norm of a score's coefficients, each per standard deviation of the site's own inputs
MOST_CASES = 1e7
_FIXED = ("counts", "mean", "projection", "spread", "landmarks", "kernel_map")
_SAME_MAP = 1e-6  # share of the largest entry; another machine's eigenvectors differ by rounding


def check_follows(settings: Classification, seed: int, state: State, last: State | None) -> None:
    """Hold a state against the last that this site answered.

    Args:
        settings: what is predicted, from what and by which model.
        seed: the study's.
        state: one that `check_state` lets pass.
        last: None where the site has answered none, as it came late.

    Raises:
        RefusedError: with the code BAD_MODEL; the line says what does not follow.
    """
    first, phase = first_state(settings, seed), phase_of(state)
    if phase is Phase.PREPARE:
        _expect_near(state, first, tuple(first), "the first state is not the study's")
        return
    _expect_near(state, first, tuple({"landmarks"} & set(first)), "the landmarks are not the study's")
    if last is not None and phase_of(last) is not Phase.PREPARE:
        _expect(phase >= phase_of(last), f"{phase.name} does not come after {phase_of(last).name}")
        _expect_same(state, last, tuple({*_FIXED} & set(last)), "what the first sums fixed has changed")
    if isinstance(settings.model, BoostedTrees) and last is not None and phase_of(last) is Phase.FIT:
        before = len(last["trees"])
        _expect(np.array_equal(state["trees"][:before], last["trees"]), "trees: those asked last are not the first")
    for name in ("coefficients", "link"):
        if f"{name}_search" in state:
            _expect_on_line(state, first, last, name)


def check_measured(settings: Classification, seed: int, state: State, last: State | None, features_NP: Floats) -> None:
    """Hold a state whose metrics are asked for against the last that this site answered, and its own patients.

    Args:
        settings: what is predicted, from what and by which model.
        seed: the study's.
        state: one that `check_state` lets pass.
        last: None where the site has answered none, as it came late or is left out.
        features_NP: of its training patients or, where it has none, of those that are measured.

    Raises:
        RefusedError: with the code BAD_MODEL; the line says what is wrong.
    """
    if phase_of(state) is Phase.PREPARE:
        check_follows(settings, seed, state, last)
        return
    first = first_state(settings, seed)
    _expect_near(state, first, tuple({"landmarks"} & set(first)), "the landmarks are not the study's")
    if last is not None and phase_of(last) is not Phase.PREPARE:
        _expect_same(state, last, tuple({*_FIXED} & set(last)), "what the first sums fixed has changed")
    check_bounds(settings, state, features_NP)


def check_bounds(settings: Classification, state: State, features_NP: Floats) -> None:
    """Hold a state against the site's own patients.

    Raises:
        RefusedError: with the code BAD_MODEL; the line says which figure is beyond what honest rounds come to.
    """
    phase = phase_of(state)
    if phase is Phase.PREPARE or not len(features_NP):
        return
    counts_K = state["counts"]
    _expect(bool((counts_K % 1 == 0).all() and counts_K.max() <= MOST_CASES), "counts: expected whole numbers of cases")
    prepared_NQ, spread_Q = prepare(settings, state, features_NP), state["spread"]
    rms_Q = np.sqrt((prepared_NQ**2).mean(axis=0))
    off = float((rms_Q / spread_Q).max())
    _expect(off <= MOST_RMS, f"inputs are {off:.3g} of the study's deviations off its means, at most {MOST_RMS:g}")
    if isinstance(settings.model, KernelModel):
        made_DD = kernel_map(settings.model, state["landmarks"], spread_Q)
        off = np.abs(made_DD - state["kernel_map"]).max()
        _expect(bool(off <= _SAME_MAP * np.abs(made_DD).max()), "kernel_map: not that of the landmarks")
    if isinstance(settings.model, BoostedTrees):
        _expect_spread("scores", boosted_scores(settings.model, state, prepared_NQ))
    if "coefficients_search" in state:
        _expect_moderate(design(settings, state, features_NP), state, phase)


def _expect_moderate(inputs_NM: Floats, state: State, phase: Phase) -> None:
    """Bound slopes and scores in units of the site's own patients."""
    coefficients_VM = state["coefficients"]
    slopes_V = np.sqrt(((coefficients_VM[:, :-1] * inputs_NM[:, :-1].std(axis=0)) ** 2).sum(axis=1))
    _expect(
        bool((slopes_V <= MOST_SLOPE).all()),
        f"coefficients: {slopes_V.max():.3g} per standard deviation of this site's inputs, at most {MOST_SLOPE:g}",
    )
    scores_NV = inputs_NM @ coefficients_VM.T
    _expect_spread("scores", scores_NV)
    if phase >= Phase.LINK and "link" in state:
        _expect_spread("linked scores", scores_NV * state["link"][:, 0] + state["link"][:, 1])


def _expect_spread(name: str, scores_NV: Floats) -> None:
    most = max(float(scores_NV.std(axis=0).max()), float(np.abs(scores_NV.mean(axis=0)).max()))
    _expect(most <= MOST_SPREAD, f"{name}: mean or deviation of {most:.3g} at this site, at most {MOST_SPREAD:g}")


def _expect_on_line(state: State, first: State, last: State | None, name: str) -> None:
    """A search stands still, begins, takes a whole step from the point asked last, or half of the step before."""
    names = name, f"{name}_accepted", f"{name}_direction", f"{name}_search"
    is_link, phase = name == "link", phase_of(state)
    if is_link and phase is Phase.FIT:
        _expect_same(state, first, names, "the link is searched before the coefficients are found")
        return
    here, accepted, direction, search = (state[one] for one in names)
    step, rounds = search[2], search[4]
    _expect(rounds % 1 == 0 and 0 <= rounds <= MAX_STEPS, f"{name}: {rounds:g} rounds, at most {MAX_STEPS}")
    if rounds == 0:
        _expect_same(state, first, names, f"the search for {name} does not begin where the study's does")
        return
    is_over = not is_link and phase is Phase.LINK  # a search that ends without a step down stays where it stood
    on_line = np.array_equal(here, accepted + step * direction) or (is_over and np.array_equal(here, accepted))
    _expect(0 < step <= 1 and float(np.log2(step)) % 1 == 0 and on_line, f"{name}: not on the line of the search")
    if last is None or phase_of(last) is Phase.PREPARE:
        return
    before = last[names[3]][4]
    if is_over and phase_of(last) is Phase.LINK:
        _expect_same(state, last, names, f"{name} changed after their search")
        return
    _expect(rounds > before, f"{name}: round {rounds:g} of the search after round {before:g}")
    if rounds == before + 1:
        is_whole = step == 1 and np.array_equal(accepted, last[name])
        is_half = (
            step == last[names[3]][2] / 2
            and np.array_equal(accepted, last[names[1]])
            and np.array_equal(direction, last[names[2]])
        )
        _expect(bool(is_whole or is_half), f"{name}: no step from the point that was asked last")


def _expect_near(state: State, other: State, names: tuple[str, ...], otherwise: str) -> None:
    """The same but for the last digits, which another machine may draw otherwise."""
    differ = [name for name in names if not np.allclose(state[name], other[name], rtol=1e-9, atol=1e-12)]
    _expect(not differ, f"{otherwise}: {', '.join(sorted(differ))}")


def _expect_same(state: State, other: State, names: tuple[str, ...], otherwise: str) -> None:
    differ = [name for name in names if not np.array_equal(state[name], other[name])]
    _expect(not differ, f"{otherwise}: {', '.join(sorted(differ))}")


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise RefusedError(Code.BAD_MODEL, otherwise)
