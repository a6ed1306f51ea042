"""A site's half of a kind of feature model: what it answers to a state, and which states it does not answer.

It lies in the file of this folder that is named as the kind's in `msfl_common/feature_models/`, in the class that is
named as the kind's and `Site`.

Legend: see `msfl_common.feature_models`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from msfl_client.disclosure.small_groups import Mask, groups, with_first_levels
from msfl_common.config.classification import Classification
from msfl_common.dataset import Dataset
from msfl_common.errors import UnknownModelError
from msfl_common.feature_models import FeatureModel, State, model_of
from msfl_common.feature_models.preparation import scale_subjects

Floats = NDArray[np.float64]
Kind = TypeVar("Kind", bound=FeatureModel)


@dataclass(frozen=True)
class Asked:
    """What a site is asked in a round that follows the first sums.

    Attributes:
        settings: what is predicted, from what and by which model.
        state: what the coordinator sent; it has been let pass.
        cases: the site's training cases, none of them of a group of too few patients.
        prepared_NQ: what the model sees of them.
        patients_N: whose case each is.
        floor: fewest patients that a figure may be of.
        seed: the site's own in the study.
        round_number: from 1.
        answered: states of the phase that were answered before, in their order, where the model keeps its path.
    """

    settings: Classification
    state: State
    cases: Dataset
    prepared_NQ: Floats
    patients_N: NDArray[np.str_]
    floor: int
    seed: int
    round_number: int
    answered: Sequence[State]

    def groups(self) -> list[Mask]:
        """The groups of cases that inputs set apart, where the model sees the inputs as they are."""
        everyone_N = np.ones(len(self.cases.labels_N), dtype=bool)
        scaled_NP = with_first_levels(self.settings, scale_subjects(self.settings, self.cases.features_NP))
        return groups(scaled_NP, self.patients_N, everyone_N, self.floor)


class SiteHalf(ABC, Generic[Kind]):
    """What a site does of a kind of model, whose settings are `model`."""

    def __init__(self, model: Kind) -> None:
        self.model = model

    @abstractmethod
    def answer(self, asked: Asked) -> State:
        """Arrays with the names and shapes of `answer_like`.

        Raises:
            RefusedError: too few patients carry a figure, or training came apart.
        """

    def check_next(self, state: State, first: State, last: State | None) -> None:
        """Refuse a state after the first sums that no honest rounds come to from the one that was asked last.

        What the first sums fixed has been compared already.

        Args:
            state: what is asked.
            first: the study's first state.
            last: None where this site has answered none.

        Raises:
            RefusedError: with the code BAD_MODEL; the line says what does not follow.
        """

    def check_reach(self, state: State, prepared_NQ: Floats) -> None:
        """Refuse a state after the first sums that is no honest one for this site's patients.

        Raises:
            RefusedError: with the code BAD_MODEL; the line says which figure is beyond what honest rounds come to.
        """


class FirstSumsAlone(SiteHalf[Kind]):
    """Of a model that is complete with the first sums."""

    def answer(self, asked: Asked) -> State:
        """See `SiteHalf`; a state after the first sums asks for nothing."""
        return self.model.answer_like(asked.state)


def site_half_of(settings: Classification) -> SiteHalf[FeatureModel]:
    """The site's half of a study's model of features.

    Raises:
        UnknownModelError: it has none, or one whose half is not installed here.
    """
    model = model_of(settings)
    file, name = type(model).__module__.rsplit(".", 1)[-1], f"{type(model).__name__}Site"
    place = f"msfl_client.classification.feature_models.{file}"
    try:
        half = getattr(import_module(place), name)
    except (ModuleNotFoundError, AttributeError) as error:
        raise UnknownModelError(f"{model.kind}: expected a site's half, {name} in {place}: {error}") from None
    made: SiteHalf[FeatureModel] = half(model)
    return made
