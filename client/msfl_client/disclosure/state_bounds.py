"""Whether a state that a coordinator sends may be asked of this site: it follows from the last, and nothing is huge.

Sums at arbitrary states are counting queries: with slopes of 1e9 a sum of probabilities says how many patients lie
beyond a threshold, and a threshold that moves between requests reads off every row. So:

- the first state is the study's own, bit for bit; what the first sums fixed (means, scales, components, counts) stays;
- how a kind's own arrays may go on, and how far, its site half says: searches go on as Newton's do (`searches`), trees
  are added to those that were there;
- prepared inputs, scores and slopes are bounded in units of the site's own patients.

A metric of a state is a counting query, too: what is measured is held to what the first sums fixed, and bounded.

Legend: see `msfl_common.feature_models`.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from msfl_common.config.classification import Classification
from msfl_common.errors import Code, RefusedError
from msfl_common.feature_models import Phase, State, first_state, model_of, phase_of
from msfl_common.feature_models.preparation import prepare

Floats = NDArray[np.float64]
# Of n among N patients, rms about the common mean / common deviation is at most the root of N / n.
MOST_RMS = 10.0  # of the site's prepared inputs about the study's mean, in the study's deviations: n / N above 1%
MOST_SPREAD = 10.0  # standard deviation of the scores of the site's patients, and the most that their mean is off 0
MOST_CASES = 1e7


class Rules(Protocol):
    """What a kind of model adds to the rules of all; see `SiteHalf`."""

    def check_next(self, state: State, first: State, last: State | None) -> None:
        """Hold a state after the first sums against the one that was asked last."""

    def check_reach(self, state: State, prepared_NQ: Floats) -> None:
        """Hold a state after the first sums against the site's own patients."""


def check_follows(rules: Rules, settings: Classification, seed: int, state: State, last: State | None) -> None:
    """Hold a state against the last that this site answered.

    Args:
        rules: of the study's kind of model.
        settings: what is predicted, from what and by which model.
        seed: the study's.
        state: one that `check_state` lets pass.
        last: None where the site has answered none, as it came late.

    Raises:
        RefusedError: with the code BAD_MODEL; the line says what does not follow.
    """
    first, phase = first_state(settings, seed), phase_of(state)
    if phase is Phase.PREPARE:
        expect_near(state, first, tuple(first), "the first state is not the study's")
        return
    if last is not None:
        expect(phase >= phase_of(last), f"{phase.name} does not come after {phase_of(last).name}")
    _expect_fixed(settings, state, first, last)
    rules.check_next(state, first, last)


def check_measured(
    rules: Rules, settings: Classification, seed: int, state: State, last: State | None, features_NP: Floats
) -> None:
    """Hold a state whose metrics are asked for against the last that this site answered, and its own patients.

    Args:
        rules: of the study's kind of model.
        settings: what is predicted, from what and by which model.
        seed: the study's.
        state: one that `check_state` lets pass.
        last: None where the site has answered none, as it came late or is left out.
        features_NP: of its training patients or, where it has none, of those that are measured.

    Raises:
        RefusedError: with the code BAD_MODEL; the line says what is wrong.
    """
    if phase_of(state) is Phase.PREPARE:
        check_follows(rules, settings, seed, state, last)
        return
    _expect_fixed(settings, state, first_state(settings, seed), last)
    check_bounds(rules, settings, state, features_NP)


def check_bounds(rules: Rules, settings: Classification, state: State, features_NP: Floats) -> None:
    """Hold a state against the site's own patients.

    Raises:
        RefusedError: with the code BAD_MODEL; the line says which figure is beyond what honest rounds come to.
    """
    if phase_of(state) is Phase.PREPARE or not len(features_NP):
        return
    counts_K = state["counts"]
    expect(bool((counts_K % 1 == 0).all() and counts_K.max() <= MOST_CASES), "counts: expected whole numbers of cases")
    prepared_NQ, spread_Q = prepare(settings, state, features_NP), state["spread"]
    rms_Q = np.sqrt((prepared_NQ**2).mean(axis=0))
    off = float((rms_Q / spread_Q).max())
    expect(off <= MOST_RMS, f"inputs are {off:.3g} of the study's deviations off its means, at most {MOST_RMS:g}")
    rules.check_reach(state, prepared_NQ)


def _expect_fixed(settings: Classification, state: State, first: State, last: State | None) -> None:
    """What was drawn for the study is as it was, and so is what the first sums gave."""
    model = model_of(settings)
    expect_near(state, first, model.drawn, f"the {' and '.join(model.drawn)} are not the study's")
    if last is not None and phase_of(last) is not Phase.PREPARE:
        fixed = tuple(name for name in last if name != "phase" and not name.startswith(model.moving))
        expect_same(state, last, fixed, "what the first sums fixed has changed")


def expect_spread(name: str, scores_NV: Floats) -> None:
    """Scores are such as honest rounds come to at the site's patients."""
    most = max(float(scores_NV.std(axis=0).max()), float(np.abs(scores_NV.mean(axis=0)).max()))
    expect(most <= MOST_SPREAD, f"{name}: mean or deviation of {most:.3g} at this site, at most {MOST_SPREAD:g}")


def expect_near(state: State, other: State, names: tuple[str, ...], otherwise: str) -> None:
    """The same but for the last digits, which another machine may draw otherwise."""
    differ = [name for name in names if not np.allclose(state[name], other[name], rtol=1e-9, atol=1e-12)]
    expect(not differ, f"{otherwise}: {', '.join(sorted(differ))}")


def expect_same(state: State, other: State, names: tuple[str, ...], otherwise: str) -> None:
    """The same to the bit."""
    differ = [name for name in names if not np.array_equal(state[name], other[name])]
    expect(not differ, f"{otherwise}: {', '.join(sorted(differ))}")


def expect(holds: bool, otherwise: str) -> None:
    """Refuse a state unless something holds.

    Raises:
        RefusedError: with the code BAD_MODEL.
    """
    if not holds:
        raise RefusedError(Code.BAD_MODEL, otherwise)
