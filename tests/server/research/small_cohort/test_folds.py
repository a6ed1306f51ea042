"""Folds keep patients whole and classes even."""

from __future__ import annotations

from collections import Counter

import numpy as np

from msfl_server.research.small_cohort.folds import deal_patients, patient_classes, patients_out

PATIENTS = tuple(f"p{number:02d}" for number in range(20) for _ in range(1 + number % 3))
LABELS = np.array([int(patient[1:]) % 5 == 0 for patient in PATIENTS], np.int64)


def test_leave_one_out_leaves_a_patient_out_whole() -> None:
    assert [rows.tolist() for rows in patients_out(("b", "a", "b", "c"))] == [[0, 2], [1], [3]]


def test_patients_are_dealt_whole_and_evenly() -> None:
    folds = deal_patients(LABELS, PATIENTS, 6, seed=1)
    of = dict(zip(PATIENTS, folds.tolist(), strict=True))
    assert [of[patient] for patient in PATIENTS] == folds.tolist()
    classes = patient_classes(LABELS, PATIENTS)
    for label in (0, 1):
        counts = Counter(of[patient] for patient in of if classes[patient] == label)
        assert max(counts.values()) - min(counts[fold] for fold in range(6)) <= 1
    assert max(Counter(of.values()).values()) == 4  # 20 patients in 6 folds
    assert folds.tolist() == deal_patients(LABELS, PATIENTS, 6, seed=1).tolist()
    assert folds.tolist() != deal_patients(LABELS, PATIENTS, 6, seed=2).tolist()


def test_a_patient_counts_for_the_class_of_most_rows() -> None:
    labels, patients = np.array([1, 0, 1, 1, 0]), ("a", "a", "a", "b", "b")
    assert patient_classes(labels, patients) == {"a": 1, "b": 0}
