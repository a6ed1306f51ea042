"""Sites of given cases that answer states of a feature model as in a round, with all that guards it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from msfl_client.classification.feature_models.contribution import contribute
from msfl_client.classification.feature_models.sums import logistic_sums
from msfl_client.classification.feature_trainer import FeatureLearner
from msfl_client.classification.outcome_data import OutcomeData
from msfl_client.data.bids import case_key
from msfl_client.data.case_digest import about_images
from msfl_client.features.table import FeatureRow, FeatureTable
from msfl_common.config.classification import Classification
from msfl_common.config.site import Policy, SiteConfig
from msfl_common.config.study import StudyConfig
from msfl_common.dataset import Dataset
from msfl_common.errors import RefusedError
from msfl_common.feature_models import State, check_state, first_state, is_finished
from msfl_common.messages.records import RoundTask, ValidationMetrics
from msfl_common.system.seeds import derive_seed
from msfl_server.aggregation.feature_models.combine import combine
from tests.attacks.reading_rows import (
    Floats,
)
from tests.feature_models import design, make_cases, make_settings


class Site:
    """A site with the product's own learner; `told` is what its people are shown."""

    def __init__(
        self,
        settings: Classification,
        cases: Dataset,
        folder: Path,
        min_patients: int = 5,
        validation: Dataset | None = None,
    ) -> None:
        self.told: list[str] = []
        training, training_rows = _observed(cases, "train")
        measured, measured_rows = _observed(validation, "validation") if validation else ((), ())
        self.study = StudyConfig(
            name="attacked",
            task="classification",
            classification=settings,
        )
        site = SiteConfig(name="site", data=(folder,), state=folder / "state", policy=Policy(min_patients=min_patients))
        table = FeatureTable((*training_rows, *measured_rows))
        data = SimpleNamespace(
            settings=settings,
            study=self.study,
            site=site,
            splits=SimpleNamespace(training=training, validation=measured, test=(), each=(training, measured)),
            about_images=lambda *_: about_images((), {}),
            raw=table,
            features=table,
            on_progress=lambda *told: self.told.append(str(told[-1])),
        )
        self.learner = FeatureLearner(cast(OutcomeData, data))

    def ask(self, state: State, number: int = 1) -> State:
        """One request, called round `number`."""
        check_state(self.learner._settings, state)
        return cast(State, self.learner.train(state, number, lambda *_: None, 1)[0])

    def measure(self, state: State, number: int = 1) -> ValidationMetrics:
        """One validation, called of round `number`."""
        return self.learner.measure(state, RoundTask(self.study, number, threshold=0.5), lambda *_: None)


def _observed(cases: Dataset, part: str) -> tuple[tuple[SimpleNamespace, ...], tuple[FeatureRow, ...]]:
    """A visit of each case, and its row of features."""
    visits = tuple(
        _observation(f"{part}-{who}" if part != "train" else who, str(number), int(label))
        for number, (who, label) in enumerate(zip(cases.patients, cases.labels_N, strict=True))
    )
    rows = tuple(
        FeatureRow(one.subject, one.visit_id, None, 0, dict(zip(cases.names, map(float, values), strict=True)))
        for one, values in zip(visits, cases.features_NP, strict=True)
    )
    return visits, rows


def _observation(who: str, visit_id: str, label: int) -> SimpleNamespace:
    """One visit, with features and nothing else."""
    key = case_key(who, visit_id, 0)
    visit = SimpleNamespace(days=0.0, clinical={}, case=SimpleNamespace(key=key))
    return SimpleNamespace(
        dataset=0,
        subject=who,
        visit_id=visit_id,
        patient=who,
        label=label,
        value=None,
        clinical={},
        key=key,
        visits=(visit,),
    )


def sites_of(
    settings: Classification, cases: Mapping[str, Dataset], folder: Path, min_patients: int = 5
) -> dict[str, Site]:
    """A site for each of these cases."""
    return {name: Site(settings, part, folder / name, min_patients) for name, part in cases.items()}


def play(settings: Classification, sites: Mapping[str, Site], num_rounds: int = 40) -> list[State]:
    """The states of a study that goes as it should, the last of them the model."""
    states = [first_state(settings, derive_seed(0, "weights"))]
    for number in range(1, num_rounds + 1):
        if is_finished(settings, states[-1]):
            break
        answers: dict[str, Any] = {
            name: (site.ask(states[-1], number), site.learner.num_train_cases) for name, site in sites.items()
        }
        states.append(combine(settings, states[-1], answers))
    return states


def unguarded(settings: Classification, cases: Mapping[str, Dataset], num_rounds: int = 40) -> list[State]:
    """The states of the same study among sites of the bare sums, which leave nobody out and refuse nothing."""
    states = [first_state(settings, derive_seed(0, "weights"))]
    for number in range(1, num_rounds + 1):
        if is_finished(settings, states[-1]):
            break
        seed = derive_seed(0, "site", "site")
        answers = {
            name: (contribute(settings, states[-1], part, seed, number, 1)[0], len(part.labels_N))
            for name, part in cases.items()
        }
        states.append(combine(settings, states[-1], answers))
    return states


INPUTS, SIZES = 6, (55, 40, 40)


@pytest.fixture(scope="module")
def cases() -> dict[str, Dataset]:
    return make_cases(0, SIZES, INPUTS, signal=0.6)


def study(kind: str, **model: Any) -> Classification:
    return make_settings({"kind": kind, **model}, INPUTS)


def begun(settings: Classification, cases: dict[str, Dataset], folder: Path, rounds: int = 1) -> tuple[Site, State]:
    """A site that has answered some rounds, and the state that it is asked next."""
    sites = sites_of(settings, cases, folder)
    return sites["site-0"], play(settings, sites, rounds)[-1]


def refused(site: Site, state: State, number: int = 1) -> str:
    """Why the site does not answer."""
    with pytest.raises(RefusedError) as error:
        site.ask(state, number)
    return str(error.value)


DIRECTION = np.array([0.5, -0.4, 0.3, 0.5, 0.4, -0.3])


def rows_of(settings: Classification, state: State, cases: Dataset) -> Floats:
    return design(settings, state, cases.features_NP)[:, :-1]


def bare_logistic(settings: Classification, cases: Dataset) -> Any:
    return lambda state: logistic_sums(design(settings, state, cases.features_NP), cases.labels_N, state)


def going_on(state: State, **changed: NDArray[np.float64]) -> State:
    """A state whose search goes on from where `state` was asked, as far as its own figures say."""
    there = changed.get("coefficients", state["coefficients"])
    search = np.array([1.0, -1.0, 1.0, 135.0, state["coefficients_search"][4] + 1])
    line = {"coefficients_accepted": state["coefficients"], "coefficients_direction": there - state["coefficients"]}
    return state | line | {"coefficients_search": search} | changed
