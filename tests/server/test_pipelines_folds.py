"""Folds keep patients whole and classes even, in one place and in a federation."""

from __future__ import annotations

from collections import Counter

import numpy as np

from msfl_client.labelled import Labelled
from msfl_server.pipelines_folds import deal_patients, leave_one_site_out, own_cases, patient_classes, patients_out

PATIENTS = tuple(f"p{number:02d}" for number in range(20) for _ in range(1 + number % 3))
LABELS = np.array([int(patient[1:]) % 5 == 0 for patient in PATIENTS], np.int64)


def site(patients, labels):
    return Labelled(("f",), np.zeros((len(patients), 1)), np.array(labels, np.int64), tuple(patients))


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


def test_every_site_holds_out_each_of_its_patients_once() -> None:
    sites = {"x": site(PATIENTS, LABELS), "y": site(PATIENTS[:9], LABELS[:9])}
    folds = list(own_cases(sites, 3, seed=0))
    for name, cases in sites.items():
        assert np.concatenate([fold.test[name] for fold in folds]).tolist() != list(range(len(cases.patients)))
        assert sorted(np.concatenate([fold.test[name] for fold in folds])) == list(range(len(cases.patients)))
        for fold in folds:
            inside = {cases.patients[row] for row in fold.train[name]}
            assert inside.isdisjoint({cases.patients[row] for row in fold.test[name]})
            assert len(fold.train[name]) + len(fold.test[name]) == len(cases.patients)


def test_one_site_is_left_out_whole() -> None:
    sites = {"x": site(PATIENTS, LABELS), "y": site(PATIENTS[:9], LABELS[:9])}
    first, second = leave_one_site_out(sites)
    assert (first.name, second.name) == ("without-x", "without-y")
    assert first.train["x"].size == first.test["y"].size == 0
    assert first.test["x"].tolist() == list(range(len(PATIENTS)))
    assert first.train["y"].tolist() == list(range(9))
