"""The simulated patients of an audit, and their sites: bare, or as they answer with all that guards them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from msfl_client.classification.feature_models.contribution import contribute
from msfl_client.classification.feature_models.sums import logistic_sums
from msfl_client.classification.feature_trainer import FeatureLearner
from msfl_client.classification.outcome_data import OutcomeData, read_outcomes
from msfl_client.classification.visit_sequences import VisitSequence
from msfl_client.clinical.inputs import dataset_of
from msfl_client.clinical.splits import Splits
from msfl_common.config.classification import Classification
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import StudyConfig
from msfl_common.dataset import Dataset
from msfl_common.errors import InputError
from msfl_common.feature_models import Phase, State, check_state, first_state, is_finished, model_of, phase_of
from msfl_common.feature_models.linear import LinearScores
from msfl_common.feature_models.preparation import prepare
from msfl_common.system.seeds import derive_seed
from msfl_server.aggregation.feature_models.combine import combine

Floats = NDArray[np.float64]
Ask = Callable[[State], State]  # a site: it answers, or raises RefusedError
Fit = Callable[[NDArray[np.int64], NDArray[np.bool_], int], Floats]
"""Probabilities_NK that a model gives all patients, of their classes, who of them it learns from, and its number."""
NOISE = "differential privacy"
FEW = 9  # patients of a site whose honest search alone is equations enough


@dataclass(frozen=True)
class _FewOutcomes(OutcomeData):
    """A site that has few training patients."""

    @cached_property
    def splits(self) -> Splits:
        """The first of each class in turn."""
        found = super().splits
        before, turns = Counter[int](), []
        for one in found.training:
            turns.append(before[one.label])
            before[one.label] += 1
        kept = [found.training[place] for place in np.argsort(turns, kind="stable")[:FEW]]
        return replace(found, training=tuple(kept))


@dataclass(frozen=True)
class AuditSite:
    """A site.

    Attributes:
        study: its settings.
        data: what it can learn from.
    """

    study: StudyConfig
    data: OutcomeData

    @property
    def settings(self) -> Classification:
        """Of the study's outcome."""
        return self.data.settings

    @cached_property
    def training(self) -> Dataset:
        """Whom the study learns from."""
        return dataset_of(self.data.splits.training, self.settings, self.data.raw)

    @cached_property
    def others(self) -> Dataset:
        """Who is in no sum."""
        return dataset_of([*self.data.splits.validation, *self.data.splits.test], self.settings, self.data.raw)

    def bare(self, state: State) -> State:
        """The sums as they are: nothing is refused, and nobody left out."""
        if phase_of(state) is Phase.PREPARE:
            return contribute(self.settings, state, self.training, 0, 1, 1)[0]
        return logistic_sums(design(self.settings, state, self.training.features_NP), self.training.labels_N, state)

    @cached_property
    def guarded(self) -> Ask:
        """The site with the product's own learner, which counts and bounds what it answers."""
        learner = FeatureLearner(self.data)

        def ask(state: State) -> State:
            check_state(self.settings, state)
            return learner.train(state, 1, lambda *_: None, 1)[0]

        return ask


@dataclass(frozen=True)
class Cohort:
    """What attacks are carried out on.

    Attributes:
        study: its settings.
        sites: with all their patients; none of a study that trains a network.
        few: the same sites with few training patients.
        num_models: fitted to random halves of the patients.
        on_model: called after each.
        networks: sites of a study that trains a network, with the sequence of visits of each patient.
    """

    study: StudyConfig
    sites: Mapping[str, AuditSite]
    few: Mapping[str, AuditSite]
    num_models: int
    on_model: Callable[[], None]
    networks: Mapping[str, Sequence[VisitSequence]] = field(default_factory=dict)


def read_sites(study: StudyConfig, sites: Sequence[SiteConfig], few: bool = False) -> dict[str, AuditSite]:
    """The sites of a cohort; `few`: each has few training patients.

    Raises:
        InputError: a table cannot be read, or a site has no case.
    """
    found = {}
    for site in sites:
        data = read_outcomes(site, study, lambda *_: None)
        if few:
            data = _FewOutcomes(data.site, data.study, data.cases, data.raw, data.on_progress)
        found[site.name] = AuditSite(study, data)
        if not len(found[site.name].training.labels_N):
            raise InputError(f"{site.name}: no training case with every input and a label; audit a larger cohort")
    return found


def design(settings: Classification, state: State, features_NP: Floats) -> Floats:
    """What a linear model's coefficients are multiplied with, N x M."""
    model = model_of(settings)
    assert isinstance(model, LinearScores)
    return model.design(state, prepare(settings, state, features_NP))


def play(study: StudyConfig, sites: Mapping[str, tuple[Ask, int]], num_rounds: int) -> list[State]:
    """The states of an honest study, the last of them the model.

    Args:
        study: its settings.
        sites: how each answers, and of how many cases.
        num_rounds: at most.

    Raises:
        RefusedError: a site does not answer.
    """
    settings = study.classification
    assert settings is not None
    states = [first_state(settings, derive_seed(study.seed, "weights"))]
    while len(states) <= num_rounds and not is_finished(settings, states[-1]):
        answers = {name: (ask(states[-1]), number) for name, (ask, number) in sites.items()}
        states.append(combine(settings, states[-1], answers))
    return states
