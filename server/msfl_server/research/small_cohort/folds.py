"""Which cases train and which test, in one place; a patient's rows always stay together.

Legend: N cases.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.intp]


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
