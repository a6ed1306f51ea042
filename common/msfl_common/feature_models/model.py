"""What a model of features is: settings and rules in one class, which every part of MSFL asks instead of its kind.

A kind is two files of one name: here the class, with what both sides know, from the first state to the prediction, and
how answers become the next state; at the site (`msfl_client/classification/feature_models/`) what is answered, and what
is refused. What a class leaves out has the strictest sense: sites refuse the model until its author has shown that no
row can be solved out of its answers, and arrays keep what the first sums gave them.

Legend: see the package.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from msfl_common.feature_models.first_sums import Sums
from msfl_common.feature_models.settings import Frozen, Settings
from msfl_common.feature_models.state import MAX_STEPS, Floats, Phase, State, scalar

_LEAST = 1e-9  # probabilities are told apart down to this
_NOTHING = "asks for nothing after the first sums"


@dataclass(frozen=True)
class Answer:
    """What a site answered to a state.

    Attributes:
        site: whose.
        arrays: with the names and shapes of `answer_like`.
        num_cases: training cases that it is of.
        share: what it counts for in an average, of 1; sums count each case once.
    """

    site: str
    arrays: State
    num_cases: int
    share: float


class FeatureModel(Frozen, ABC):
    """Predicts an outcome from features; learned from sums, averages or trees of sites, never from rows."""

    kind: str = Field(description="which model")

    # What it tells of patients: sites hold themselves to these.
    can_be_solved: ClassVar[bool] = True  # rows can be solved out of the answers, whatever bounds a site keeps
    num_rounds_needed: ClassVar[int | None] = None  # after which it is certainly finished; None: more always add
    answers_sums: ClassVar[bool] = True  # after the first sums, too, so that a site counts their numbers
    most_fits: ClassVar[int | None] = MAX_STEPS  # states of the phase FIT that a site answers; None: as policy allows
    keeps_path: ClassVar[bool] = False  # an answer depends on the states of FIT before, too, and the site keeps them
    draws_anew: ClassVar[bool] = False  # an answer of FIT depends on the number of the round
    moving: ClassVar[tuple[str, ...]] = ()  # beginnings of the names of arrays that change after the first sums
    drawn: ClassVar[tuple[str, ...]] = ()  # arrays of the first state that are drawn for the study, and stay
    above_zero: ClassVar[frozenset[str]] = frozenset({"spread"})  # arrays whose values are above 0 in every state
    # What the coordinator makes of it.
    sums_suffice: ClassVar[bool] = False  # the sum of the answers of FIT over sites is all that it needs of them
    uses_shares: ClassVar[bool] = False  # a site's share counts, as in an average; sums count each case once
    averages: ClassVar[bool] = False  # answers of FIT are the model's own arrays, and their mean the next ones
    can_go_back: ClassVar[bool] = False  # may be set back to an earlier state where it came apart
    adds_checked: ClassVar[bool] = False  # all that is new in a state after FIT are answers, each checked by itself

    @classmethod
    def __pydantic_init_subclass__(cls, **settings: Any) -> None:
        """A rule of its own is not what an inherited `sums_suffice` was said of."""
        super().__pydantic_init_subclass__(**settings)
        if "next_state" in vars(cls) and "sums_suffice" not in vars(cls):
            cls.sums_suffice = False

    def check_settings(self, settings: Settings) -> None:
        """Refuse a study that the model cannot serve.

        Raises:
            ValueError: says which setting.
        """

    def unused(self) -> Mapping[str, str]:
        """Settings of the model that have no effect beside its others, and why."""
        return {}

    @property
    def degree_of_products(self) -> int:
        """Of how many inputs products are columns of its sums, too; 1 where the inputs alone are."""
        return 1

    def num_scores(self, settings: Settings) -> int:
        """V: figures before they become probabilities; two classes need one."""
        num_classes = len(settings.outcome.classes)
        return 1 if num_classes == 2 else num_classes

    def num_scatters(self, settings: Settings) -> int:
        """Matrices of scatter in the first sums: none, one for all classes together, or one for each class."""
        return int(settings.preparation.reduction == "pca" or settings.preparation.selection == "rfe")

    @abstractmethod
    def first_arrays(self, settings: Settings, num_prepared: int, seed: int) -> State:
        """The model's own part of the first state; every later one has the same names and shapes.

        A first axis of 0 may have any length later.

        Args:
            settings: inputs, classes and preparation.
            num_prepared: Q.
            seed: of the study.
        """

    def after_first_sums(self, settings: Settings, state: State, sums: Sums) -> State:
        """The model's own arrays, and the phase, after the first sums; `state` holds the preparation already."""
        del settings, state, sums
        return {"phase": scalar(Phase.FIT)}

    def answer_like(self, state: State) -> State:
        """Names and shapes of a site's answer after the first sums; a first axis of 0 may have any length there."""
        del state
        raise AssertionError(f"{self.kind}: {_NOTHING}")

    def fewest_numbers(self, first: State) -> int:
        """Numbers that a site gives out after the first sums, in the shortest run; see `releases` at the site."""
        if self.num_rounds_needed == 1:
            return 0
        return sum(value.size for value in self.answer_like(first | {"phase": scalar(Phase.FIT)}).values())

    def check_answer(self, state: State, answer: State, num_cases: int) -> None:
        """Refuse an answer of `num_cases` cases that no cases give; it has the names and shapes of `answer_like`.

        Raises:
            UpdateError: says what contradicts what.
        """
        del state, answer, num_cases
        raise AssertionError(f"{self.kind}: {_NOTHING}")

    def next_state(self, state: State, answers: Sequence[Answer]) -> State:
        """The state after a round that follows the first sums; answers come in the sites' alphabetical order.

        Raises:
            UpdateError: an answer that is none; the line names the site.
        """
        del state, answers
        raise AssertionError(f"{self.kind}: {_NOTHING}")

    def check_arrays(self, state: State) -> None:
        """Refuse arrays of the right names and shapes that the model cannot have.

        Raises:
            UpdateError: says which.
        """

    def is_moderate(self, state: State) -> bool:
        """Whether sites will answer a state, as far as the coordinator can tell."""
        del state
        return True

    def figure_of(self, answer: State) -> float:
        """One figure of an answer by which sites can be compared; see `usual_figure`."""
        del answer
        return 0.0

    @property
    def usual_figure(self) -> float | None:
        """What an honest site's figure may be in any case; None: sites are not compared by it."""
        return None

    @abstractmethod
    def probabilities(self, state: State, prepared_NQ: Floats) -> Floats:
        """The probability of each class, N x K, from a state after the first sums."""

    def parts(self, state: State, scaled_P: Floats, number: int) -> Floats:
        """What each input adds to the log odds of a class, P: the log odds less those with it at its mean.

        What inputs do only together is counted with each of them, so the parts need not sum to the whole.
        """
        from scipy.special import logit

        replaced_PP = np.where(np.eye(len(scaled_P), dtype=bool), state["mean"], scaled_P)
        prepared = (np.vstack([scaled_P, replaced_PP]) - state["mean"]) @ state["projection"]
        probabilities: NDArray[np.float64] = self.probabilities(state, prepared)[:, number]
        odds = logit(np.clip(probabilities, _LEAST, 1 - _LEAST))
        parts_P: Floats = odds[0] - odds[1:]
        return parts_P
