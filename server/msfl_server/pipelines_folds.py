"""Which cases train and which test, in one place and in a federation; a patient's rows always stay together.

Legend: N cases.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msfl_client.labelled import Labelled
from msfl_common.seeds import derive_seed

Rows = NDArray[np.intp]


@dataclass(frozen=True)
class FederatedFold:
    """One fold of a federation: rows of each site, by its name.

    Attributes:
        name: of the fold.
        train: rows that a site trains on; a site that takes no part has none.
        test: rows that are measured; they take no part in training, at any site.
    """

    name: str
    train: Mapping[str, Rows]
    test: Mapping[str, Rows]


def patients_out(patients: Sequence[str]) -> list[Rows]:
    """Leave-one-out: the rows of each patient, in the order in which patients first appear."""
    of = np.array(patients)
    return [np.flatnonzero(of == patient) for patient in dict.fromkeys(patients)]


def deal_patients(labels_N: NDArray[np.int64], patients: Sequence[str], num_folds: int, seed: int) -> NDArray[np.int64]:
    """Stratified folds: the fold of each case, 0..num_folds-1.

    The patients of a class are shuffled and dealt one after the other, and the next class goes on where the last
    ended: folds differ by one patient at most, and so do their patients of any class. A patient counts for the class
    of most of its rows.
    """
    class_of = patient_classes(labels_N, patients)
    shuffled = np.random.default_rng(seed).permutation(list(class_of))
    dealt = sorted(shuffled, key=lambda patient: class_of[str(patient)])
    fold_of = {str(patient): number % num_folds for number, patient in enumerate(dealt)}
    return np.array([fold_of[patient] for patient in patients], np.int64)


def patient_classes(labels_N: NDArray[np.int64], patients: Sequence[str]) -> dict[str, int]:
    """The class of most of a patient's rows; of equals, the lower."""
    rows: dict[str, list[int]] = {}
    for patient, label in zip(patients, labels_N, strict=True):
        rows.setdefault(patient, []).append(int(label))
    return {patient: min(Counter(sorted(labels)).most_common(1))[0] for patient, labels in rows.items()}


def own_cases(sites: Mapping[str, Labelled], num_folds: int, seed: int) -> Iterator[FederatedFold]:
    """Every site holds out its own cases: in each fold another part of each site's patients, stratified.

    Args:
        sites: each site's cases.
        num_folds: folds; each patient is held out in one of them.
        seed: of the study.
    """
    dealt = {
        name: deal_patients(site.labels_N, site.patients, num_folds, derive_seed(seed, "own-cases", name))
        for name, site in sites.items()
    }
    for fold in range(num_folds):
        yield FederatedFold(
            f"fold-{fold + 1}",
            {name: np.flatnonzero(folds_N != fold) for name, folds_N in dealt.items()},
            {name: np.flatnonzero(folds_N == fold) for name, folds_N in dealt.items()},
        )


def leave_one_site_out(sites: Mapping[str, Labelled]) -> Iterator[FederatedFold]:
    """One site is left out whole: the others train on all their cases, and it tests on all of its own."""
    every = {name: np.arange(len(site.patients)) for name, site in sites.items()}
    none = np.empty(0, np.intp)
    for left_out in sites:
        yield FederatedFold(
            f"without-{left_out}",
            {name: none if name == left_out else rows for name, rows in every.items()},
            {name: rows if name == left_out else none for name, rows in every.items()},
        )
