"""Who trains a segmentation and who validates it."""

from __future__ import annotations

import dataclasses

import pytest

from msfl_client.data.bids import Case
from msfl_client.data.patient_split import split_by_patient
from msfl_common.config.validation import ValidationFold


def cases_of(dataset: int, *subjects: str, visits: int = 1) -> list[Case]:
    return [Case(dataset, subject, f"ses-{number}", {}, None, None) for subject in subjects for number in range(visits)]


class TestSplit:
    subjects = tuple(f"sub-{number:02d}" for number in range(20))

    def test_patients_are_never_on_both_sides_and_every_case_is_on_one(self):
        cases = cases_of(0, *self.subjects, visits=3)
        training, validation = split_by_patient(cases, 0.25, seed=1)
        assert {case.patient for case in training}.isdisjoint(case.patient for case in validation)
        assert len({case.patient for case in validation}) == 5
        assert [case for case in cases if case in training or case in validation] == cases
        assert len(training) + len(validation) == len(cases)

    def test_order_of_cases_does_not_matter_and_the_seed_does(self):
        cases = cases_of(0, *self.subjects)
        _, forward = split_by_patient(cases, 0.25, seed=1)
        _, backward = split_by_patient(cases[::-1], 0.25, seed=1)
        _, other = split_by_patient(cases, 0.25, seed=2)
        assert set(forward) == set(backward)
        assert set(forward) != set(other)

    def test_known_answer(self):
        _, validation = split_by_patient(cases_of(0, "sub-a", "sub-b", "sub-c", "sub-d"), 0.5, seed=7)
        assert [case.subject for case in validation] == ["sub-a", "sub-c"]

    def test_pooled_folders_split_as_they_do_apart(self):
        alone = [split_by_patient(cases_of(0, *part), 0.3, seed=5) for part in (self.subjects[:7], self.subjects)]
        pooled = split_by_patient(cases_of(0, *self.subjects[:7]) + cases_of(1, *self.subjects), 0.3, seed=5)
        for side in (0, 1):
            assert [case.subject for case in pooled[side]] == [case.subject for part in alone for case in part[side]]

    def test_one_person_in_two_folders_is_never_on_both_sides(self):
        first = [dataclasses.replace(case, one_person=True) for case in cases_of(0, *self.subjects)]
        second = [dataclasses.replace(case, one_person=True) for case in cases_of(1, *self.subjects)]
        training, validation = split_by_patient([*second, *first], 0.25, seed=1)
        assert {case.patient for case in training}.isdisjoint(case.patient for case in validation)
        assert len({case.patient for case in validation}) == 5
        assert len(validation) == 10
        assert set(validation) >= set(split_by_patient(first, 0.25, seed=1)[1])

    @pytest.mark.parametrize(
        ("num_patients", "fraction", "held_out"),
        [(1, 0.5, 0), (2, 0.01, 1), (2, 0.99, 1), (10, 0.25, 3), (10, 0.999, 9), (30, 0.1, 3), (20, 0.05, 1)],
    )
    def test_number_held_out(self, num_patients, fraction, held_out):
        cases = cases_of(0, *(f"sub-{number}" for number in range(num_patients)))
        training, validation = split_by_patient(cases, fraction, seed=0)
        assert (len(training), len(validation)) == (num_patients - held_out, held_out)

    def test_each_patient_validates_in_one_fold_and_trains_in_the_others(self):
        cases = cases_of(0, *self.subjects[:7], visits=2) + cases_of(1, *self.subjects)
        folds = [split_by_patient(cases, 0.25, 1, ValidationFold(number=number, of=3)) for number in (1, 2, 3)]
        held = [case for _, validation in folds for case in validation]
        assert sorted(held, key=cases.index) == cases
        assert all(len(training) + len(validation) == len(cases) for training, validation in folds)
        sizes = [len({case.patient for case in validation}) for _, validation in folds]
        assert max(sizes) - min(sizes) <= 2  # one of each folder

    def test_no_case_splits_into_nothing(self):
        assert split_by_patient([], 0.25, seed=0) == ([], [])
