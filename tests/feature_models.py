"""Synthetic cases at sites, and the rounds of a feature model on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msfl_client.classification.feature_models.contribution import contribute
from msfl_common.config.classification import Classification
from msfl_common.config.feature_catalogue import FEATURES
from msfl_common.dataset import Dataset
from msfl_common.feature_models import State, check_state, contribution_like, first_state, is_finished, model_of
from msfl_common.feature_models.linear import LinearScores
from msfl_common.feature_models.preparation import prepare
from msfl_server.aggregation.feature_models.combine import combine


def make_settings(
    model: Mapping[str, Any], num_inputs: int, num_classes: int = 2, **preparation: Any
) -> Classification:
    outcome = {"column": "course", "classes": tuple(f"c{number}" for number in range(num_classes))}
    return Classification.model_validate(
        {
            "outcome": outcome,
            "features": tuple(FEATURES)[:num_inputs],
            "clinical": (),
            "preparation": preparation,
            "model": model,
        }
    )


def make_cases(
    seed: int, sizes: Sequence[int], num_inputs: int, num_classes: int = 2, signal: float = 1.0
) -> dict[str, Dataset]:
    """Correlated inputs of unlike sizes, a quarter of which tell of the class; sites of unlike sizes and shares."""
    rng = np.random.default_rng(seed)
    mixing = np.eye(num_inputs) + 0.3 * rng.normal(size=(num_inputs, num_inputs)) / np.sqrt(num_inputs)
    shifts = np.zeros((num_classes, num_inputs))
    shifts[:, : max(2, num_inputs // 4)] = signal * rng.normal(size=(num_classes, max(2, num_inputs // 4)))
    scale, offset = 10.0 ** rng.uniform(-2, 3, num_inputs), rng.normal(0, 3, num_inputs)
    sites = {}
    for number, size in enumerate(sizes):
        labels = rng.choice(num_classes, size, p=rng.dirichlet(np.full(num_classes, 20.0)))
        labels[:num_classes] = np.arange(num_classes)
        values = (rng.normal(size=(size, num_inputs)) @ mixing + shifts[labels] + offset) * scale
        names = tuple(FEATURES)[:num_inputs]
        sites[f"site-{number}"] = Dataset(names, values, labels.astype(np.int64), tuple(map(str, range(size))))
    return sites


def design(settings: Classification, state: State, features_NP: NDArray[np.float64]) -> NDArray[np.float64]:
    """What a linear model's coefficients are multiplied with."""
    model = model_of(settings)
    assert isinstance(model, LinearScores)
    return model.design(state, prepare(settings, state, features_NP))


def pooled(sites: Mapping[str, Dataset]) -> Dataset:
    parts = list(sites.values())
    rows, labels = np.concatenate([part.features_NP for part in parts]), np.concatenate([p.labels_N for p in parts])
    return Dataset(parts[0].names, rows, labels, tuple(map(str, range(len(labels)))))


def play(
    settings: Classification, sites: Mapping[str, Dataset], num_rounds: int = 201, seed: int = 0, min_patients: int = 1
) -> State:
    """Rounds until the model is finished, or so many."""
    state = first_state(settings, seed)
    for number in range(1, num_rounds + 1):
        if is_finished(settings, state):
            break
        state = combine(settings, state, answers_of(settings, state, sites, number, seed, min_patients))
        check_state(settings, state)
    return state


def answers_of(
    settings: Classification,
    state: State,
    sites: Mapping[str, Dataset],
    number: int,
    seed: int = 0,
    min_patients: int = 1,
) -> dict[str, tuple[State, int]]:
    """What the sites answer in a round; each holds what was asked for."""
    check_state(settings, state)
    like, answers = contribution_like(settings, state), {}
    for site, cases in sites.items():
        answer, loss = contribute(settings, state, cases, seed, number, min_patients)
        assert np.isfinite(loss)
        assert list(answer) == list(like)
        for name, value in answer.items():
            free = like[name].ndim > 0 and len(like[name]) == 0
            assert value.dtype == np.float64
            assert value.shape[free:] == like[name].shape[free:]
        answers[site] = answer, len(cases.labels_N)
    return answers
