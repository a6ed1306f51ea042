"""Synthetic cases of a number at sites, and a study of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from msfl_common.config.feature_catalogue import FEATURES
from msfl_common.config.regression import Regression
from msfl_common.dataset import Dataset
from tests.feature_models import make_cases


def make_regression(model: Mapping[str, Any], num_inputs: int, **preparation: Any) -> Regression:
    """A study of the column `score`, from 0 to 10 points."""
    return Regression.model_validate(
        {
            "outcome": {"column": "score", "unit": "points", "range": (0, 10)},
            "features": tuple(FEATURES)[:num_inputs],
            "clinical": (),
            "preparation": preparation,
            "model": model,
        }
    )


def make_numbers(seed: int, sizes: Sequence[int], num_inputs: int, noise: float = 0.5) -> dict[str, Dataset]:
    """Correlated inputs of unlike sizes, three of which tell of the number; 0 to 10, or cut to that."""
    rng, sites = np.random.default_rng(seed + 1), make_cases(seed, sizes, num_inputs)
    everyone_NP = np.concatenate([cases.features_NP for cases in sites.values()])
    mean_P, deviation_P = everyone_NP.mean(axis=0), everyone_NP.std(axis=0)
    slopes_P = np.zeros(num_inputs)
    slopes_P[:3] = (1.0, -0.7, 0.4)
    made = {}
    for site, cases in sites.items():
        exact_N = 5 + (cases.features_NP - mean_P) / deviation_P @ slopes_P
        values_N = np.clip(exact_N + noise * rng.normal(size=len(exact_N)), 0, 10)
        made[site] = replace(cases, labels_N=np.zeros(len(exact_N), np.int64), values_N=values_N)
    return made


def together(sites: Mapping[str, Dataset]) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    """Inputs and numbers of all sites."""
    inputs_NP = np.concatenate([cases.features_NP for cases in sites.values()])
    return inputs_NP, np.concatenate([cases.values_N for cases in sites.values() if cases.values_N is not None])
