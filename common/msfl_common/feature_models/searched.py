"""Models whose coefficients are searched by Newton's method, from gradients and curvatures summed over sites.

Legend: see the package; L coefficients of one block.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from msfl_common.errors import UpdateError
from msfl_common.feature_models.linear import LinearScores
from msfl_common.feature_models.model import Answer
from msfl_common.feature_models.newton import Penalty, next_step
from msfl_common.feature_models.settings import Settings
from msfl_common.feature_models.state import MAX_STEPS, Floats, Phase, State, phase_of, scalar
from msfl_common.system.checked_arrays import check_scatter

_ROUNDING = 1e-9
_FEWEST_STEPS = 2
_SLACK = 100.0  # times the squares of the inputs that the first sums told of: a site may come later
_MOST_SLOPE = 20.0  # norm of a score's coefficients, each for a standard deviation of its input


class Searched(LinearScores):
    """A linear model that is searched in rounds, as if all cases were in one place."""

    keeps_path: ClassVar[bool] = True
    sums_suffice: ClassVar[bool] = True
    moving: ClassVar[tuple[str, ...]] = ("coefficients", "link")
    num_rounds_needed: ClassVar[int | None] = 1 + MAX_STEPS  # Newton's method needs 6 to 12 steps
    is_hinge: ClassVar[bool] = False  # the squared hinge's sums; else those of the (multinomial) logistic loss
    most_wanted: ClassVar[float] = 1.0  # the largest mean square of what scores are to be, of a hinge

    @property
    @abstractmethod
    def held_small(self) -> Penalty:
        """What keeps coefficients small."""

    def squares_of_inputs(self, state: State, num_cases: int) -> Floats | None:
        """The largest sum of squares that each input, and the intercept, can have, M; None: not bounded."""
        del state, num_cases
        return None

    def answer_like(self, state: State) -> State:
        """See `FeatureModel`; classes of a multinomial model curve together, others each by itself."""
        is_link = phase_of(state) is Phase.LINK
        num_rows, num_columns = shape = state["link" if is_link else "coefficients"].shape
        is_joint = not is_link and not self.is_hinge
        blocks, size = (1, num_rows * num_columns) if is_joint else (num_rows, num_columns)
        return {"loss": scalar(0.0), "gradient": np.zeros(shape), "curvature": np.zeros((blocks, size, size))}

    def fewest_numbers(self, first: State) -> int:
        """See `FeatureModel`: two steps, of whose curvature one block counts."""
        size = first["coefficients"].shape[1]
        return _FEWEST_STEPS * (1 + first["coefficients"].size + size * (size + 1) // 2)

    def next_state(self, state: State, answers: Sequence[Answer]) -> State:
        """See `FeatureModel`: one step of the search for `coefficients` or `link`."""
        name = "link" if phase_of(state) is Phase.LINK else "coefficients"
        sums = {key: np.sum([one.arrays[key] for one in answers], axis=0) for key in answers[0].arrays}
        penalty = Penalty(0.0, 0.0, 1.0) if name == "link" else self.held_small
        after, is_over = next_step(penalty, state, sums, sum(one.num_cases for one in answers), name)
        if not is_over:
            return after
        return after | {"phase": scalar(Phase.LINK if name == "coefficients" and "link" in state else Phase.DONE)}

    def check_answer(self, state: State, answer: State, num_cases: int) -> None:
        """See `FeatureModel`: loss, gradient and curvature at the coefficients that were sent.

        A logistic curve weighs a case by a quarter at most, in the gradient by 1; a squared hinge by 2, and by Cauchy
        and Schwarz its gradient is bounded by loss and curvature. Inputs are bounded where the first sums bound them.
        """
        is_link = phase_of(state) is Phase.LINK
        is_hinge = self.is_hinge and not is_link
        loss, gradient_VM, curvature_CLL = float(answer["loss"]), answer["gradient"], answer["curvature"]
        if loss < -_ROUNDING * num_cases:
            raise UpdateError("loss: expected no negative sum")
        for block_LL in curvature_CLL:
            check_scatter("curvature", block_LL)
        curved_VM = np.einsum("cll->cl", curvature_CLL).reshape(gradient_VM.shape)
        slack, case_weight = 1 + 1e-6, 2.0 if is_hinge else 0.25
        if (curved_VM[:, -1] > slack * case_weight * num_cases).any():
            raise UpdateError(f"curvature: expected an intercept's of at most {case_weight:g} a case")
        if is_hinge and (gradient_VM**2 > slack * 2 * loss * curved_VM + 1e-12).any():
            raise UpdateError("gradient: expected no more than loss and curvature allow")
        if not is_hinge and (np.abs(gradient_VM[:, -1]) > slack * num_cases).any():
            raise UpdateError("gradient: expected an intercept's of at most 1 a case")
        squares_M = None if is_link else self.squares_of_inputs(state, num_cases)
        if squares_M is None:
            return
        if (curved_VM > case_weight * squares_M).any():
            raise UpdateError("curvature: expected no more than the inputs allow")
        reach = (np.abs(state["coefficients"]) @ np.sqrt(squares_M)).sum()
        if is_hinge:
            most = len(gradient_VM) * 2 * (num_cases * self.most_wanted + reach**2)
        else:
            most = num_cases * np.log(len(state["counts"])) + 2 * np.sqrt(num_cases) * reach
            if (np.abs(gradient_VM) > np.sqrt(num_cases * squares_M)).any():
                raise UpdateError("gradient: expected no more than the inputs allow")
        if loss > slack * most:
            raise UpdateError(f"loss: expected at most {most:.3g}, found {loss:.3g}")


class SearchedOnInputs(Searched):
    """One that sees the prepared inputs as they are."""

    penalty: Literal["none", "l1", "l2", "elastic-net"] = Field("l2", description="what keeps coefficients small")
    inverse_strength: float = Field(1.0, gt=0, description="scikit-learn's C: the smaller, the smaller coefficients")
    l1_ratio: float = Field(0.5, ge=0, le=1, description="share of l1 in an elastic-net penalty")

    def unused(self) -> Mapping[str, str]:
        """See `FeatureModel`."""
        no_ratio = {} if self.penalty == "elastic-net" else {"l1_ratio": "penalty is not elastic-net"}
        return no_ratio | ({"inverse_strength": "penalty is none"} if self.penalty == "none" else {})

    @property
    def held_small(self) -> Penalty:
        """See `Searched`."""
        ratio = {"none": 0.0, "l1": 1.0, "l2": 0.0, "elastic-net": self.l1_ratio}[self.penalty]
        return Penalty(ratio, 0.0 if self.penalty == "none" else 1.0 - ratio, self.inverse_strength)

    def first_arrays(self, settings: Settings, num_prepared: int, seed: int) -> State:
        """See `FeatureModel`."""
        del seed
        return first_search(self.num_scores(settings), num_prepared + 1, with_link=self.is_hinge)

    def squares_of_inputs(self, state: State, num_cases: int) -> Floats | None:
        """See `Searched`."""
        all_cases = max(float(state["counts"].sum()), num_cases)
        return np.append(_SLACK * all_cases * state["spread"] ** 2, (1 + 1e-6) * num_cases)

    def is_moderate(self, state: State) -> bool:
        """See `FeatureModel`: coefficients are within what a site answers."""
        if phase_of(state) is Phase.PREPARE:
            return True
        scaled_VM = state["coefficients"] * np.append(state["spread"], 1.0)
        return bool((np.linalg.norm(scaled_VM, axis=1) <= _MOST_SLOPE).all())


def first_search(num_rows: int, num_columns: int, *, with_link: bool) -> State:
    """Coefficients, and a support vector machine's link, at the start of the search for them."""
    state = _searched("coefficients", np.zeros((num_rows, num_columns)))
    return state | _searched("link", np.tile([1.0, 0.0], (num_rows, 1))) if with_link else state


def _searched(name: str, start: Floats) -> State:
    """What a Newton search is after, and keeps between rounds: where it stood, and how far it went from there."""
    return {
        name: start,
        f"{name}_accepted": np.zeros_like(start),
        f"{name}_direction": np.zeros_like(start),
        f"{name}_search": np.zeros(5),  # see `newton.Search`
    }
