"""The models of features that a study comes to among some of its patients, for the attack that asks who they were."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from msfl_client.classification.feature_models.contribution import contribute
from msfl_client.classification.feature_models.private_sums import private_class_sums
from msfl_client.privacy.noise import Noise
from msfl_common.config.study import StudyConfig
from msfl_common.dataset import Dataset
from msfl_common.feature_models import State, predict_proba
from msfl_server.research.audit.patients import NOISE, Ask, AuditSite, Cohort, Fit, play

_MOST_ROUNDS = 201


def fits(cohort: Cohort) -> tuple[NDArray[np.int64], dict[str, Fit]]:
    """The classes of all patients, and by defence, none first, how a model is fitted to some of them."""
    study, parts = cohort.study, {name: _first_cases(site) for name, site in cohort.sites.items()}
    settings = study.classification
    assert settings is not None
    rows_NP = np.concatenate([part.features_NP for part in parts.values()])

    def fit_with(noisy: bool) -> Fit:
        def fit(labels_N: NDArray[np.int64], inside_N: NDArray[np.bool_], number: int) -> NDArray[np.float64]:
            state = _fitted(study, _with_labels(parts, labels_N), inside_N, noisy, number)
            return predict_proba(settings, state, rows_NP)

        return fit

    labels_N = np.concatenate([part.labels_N for part in parts.values()])
    defended = {NOISE: fit_with(True)} if study.differential_privacy is not None else {}
    return labels_N, {"": fit_with(False), **defended}


def _first_cases(site: AuditSite) -> Dataset:
    """One case of each patient, of all splits."""
    both = (site.training, site.others)
    patients = np.array([name for part in both for name in part.patients])
    _, first = np.unique(patients, return_index=True)
    first = np.sort(first)
    return Dataset(
        both[0].names,
        np.concatenate([part.features_NP for part in both])[first],
        np.concatenate([part.labels_N for part in both])[first],
        tuple(map(str, patients[first])),
    )


def _with_labels(parts: Mapping[str, Dataset], labels_N: NDArray[np.int64]) -> dict[str, Dataset]:
    """The same patients with other classes."""
    ends = np.cumsum([len(part.labels_N) for part in parts.values()])
    taken = np.split(labels_N, ends[:-1])
    return {name: replace(part, labels_N=own) for (name, part), own in zip(parts.items(), taken, strict=True)}


def _fitted(
    study: StudyConfig, parts: Mapping[str, Dataset], inside_N: NDArray[np.bool_], noisy: bool, number: int
) -> State:
    """The final model of a study among sites with some of their patients: the same that the federation comes to."""
    asks: dict[str, tuple[Ask, int]] = {}
    before = 0
    for name, part in parts.items():
        chosen = inside_N[before : before + len(part.labels_N)]
        before += len(part.labels_N)
        if chosen.any():
            patients = tuple(one for one, is_in in zip(part.patients, chosen, strict=True) if is_in)
            cases = Dataset(part.names, part.features_NP[chosen], part.labels_N[chosen], patients)
            asks[name] = _asked(study, cases, noisy, f"{name} {number}"), len(patients)
    return play(study, asks, _MOST_ROUNDS)[-1]


def _asked(study: StudyConfig, cases: Dataset, noisy: bool, release: str) -> Ask:
    settings, private = study.classification, study.differential_privacy
    assert settings is not None

    def ask(state: State) -> State:
        if noisy:
            assert private is not None
            key = hashlib.sha256(f"audit {study.seed} {release}".encode()).digest()
            return private_class_sums(settings, private, cases.features_NP, cases.labels_N, Noise(key))
        return contribute(settings, state, cases, 0, 1, 1)[0]

    return ask
