"""A table as that of a small cohort: mean values of regions in quantitative maps, of controls and two patient groups.

Each feature has a place and a scale of its own, as map values have them, and each participant a level of its own in
each map, as scanners and bodies give them, which is larger than what the groups differ by and is gone where rows are
scaled. Its accuracies say nothing about patients.

Legend: N cases, P features.
"""

from __future__ import annotations

import math

import numpy as np

from msfl_common.dataset import Dataset
from msfl_common.system.tab_separated import tsv_text

CLASSES = ("control", "slow", "fast")
MAPS = ("qT1", "FA", "TSC")
# Share of a map's regions in grey matter: 187 of 332 in Appukuttan et al. (2025).
_GREY = 187 / 332
_SHIFTED, _SHIFT = 0.1, 0.6  # share of the features that differ by group, and by how many standard deviations a step


def simulate_cases(num_cases: int = 30, num_features: int = 332, seed: int = 0) -> Dataset:
    """The cases: groups of equal size, a row a participant, features named MAP_gm001, MAP_wm001 and so on.

    Args:
        num_cases: N; a third in each group.
        num_features: P; a third of each map.
        seed: equal seeds give equal cases.
    """
    rng = np.random.default_rng(seed)
    labels_N = (np.arange(num_cases) % len(CLASSES)).astype(np.int64)
    map_P = np.arange(num_features) * len(MAPS) // num_features
    values_NP = rng.normal(size=(num_cases, num_features))
    shifted_P = rng.permutation(num_features) < math.ceil(_SHIFTED * num_features)
    values_NP += _SHIFT * np.outer(labels_N - 1, shifted_P)
    values_NP += rng.normal(size=(num_cases, len(MAPS)))[:, map_P]
    values_NP = rng.normal(0, 5, num_features) + values_NP * np.exp(rng.normal(0, 1, num_features))
    names = [name for number, name in enumerate(MAPS) for name in _regions(name, int((map_P == number).sum()))]
    patients = tuple(f"sub-{number + 1:03d}" for number in range(num_cases))
    return Dataset(tuple(names), np.round(values_NP, 4), labels_N, patients)


def table_text(cases: Dataset) -> str:
    """The cases as a tab-separated table, their label in the column `group`."""
    rows = zip(cases.patients, cases.labels_N, cases.features_NP, strict=True)
    lines = [[patient, CLASSES[label], *(f"{value:.4f}" for value in values_P)] for patient, label, values_P in rows]
    return tsv_text([["participant_id", "group", *cases.names], *lines])


def _regions(map_name: str, count: int) -> list[str]:
    grey = math.ceil(_GREY * count)
    tissues = [("gm", number + 1) for number in range(grey)] + [("wm", number + 1) for number in range(count - grey)]
    return [f"{map_name}_{tissue}{number:03d}" for tissue, number in tissues]
