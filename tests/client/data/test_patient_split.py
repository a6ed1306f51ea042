"""Who trains a segmentation, who validates it and who tests it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from msfl_client.clinical.observations import Observation, SeenVisit
from msfl_client.clinical.splits import split_observations
from msfl_client.data.bids import Case
from msfl_client.data.patient_split import CaseSplit, split_cases
from msfl_common.config.study import StudyConfig


def cases_of(dataset: int, *subjects: str, visits: int = 1) -> list[Case]:
    return [Case(dataset, subject, f"ses-{number}", {}, None, None) for subject in subjects for number in range(visits)]


def split(cases: list[Case], fraction: float = 0.25, seed: int = 1, site: str = "here", **said: Any) -> CaseSplit:
    study = StudyConfig(name="split", seed=seed, validation={"fraction": fraction, **said})
    return split_cases(cases, study, site)


def names_of(part: Any) -> list[str]:
    return [case.subject for case in part]


class TestSplit:
    subjects = tuple(f"sub-{number:02d}" for number in range(20))

    def test_patients_are_never_on_both_sides_and_every_case_is_on_one(self):
        cases = cases_of(0, *self.subjects, visits=3)
        parts = split(cases, test_fraction=0.3)
        people = [{case.patient for case in part} for part in (parts.training, parts.validation, parts.test)]
        assert [len(one) for one in people] == [9, 5, 6]
        assert len(set.union(*people)) == 20
        assert sorted((*parts.training, *parts.validation, *parts.test), key=cases.index) == cases

    def test_who_trains_and_validates_without_a_test_is_who_always_did(self):
        parts = split(cases_of(0, "sub-a", "sub-b", "sub-c", "sub-d"), 0.5, seed=7)
        assert (names_of(parts.validation), names_of(parts.training)) == (["sub-a", "sub-c"], ["sub-b", "sub-d"])
        assert not parts.test

    def test_order_of_cases_does_not_matter_and_the_seed_does(self):
        cases = cases_of(0, *self.subjects)
        forward, backward, other = (split(of, seed=seed) for of, seed in ((cases, 1), (cases[::-1], 1), (cases, 2)))
        assert set(forward.validation) == set(backward.validation)
        assert set(forward.validation) != set(other.validation)

    def test_it_is_the_split_of_an_outcome_study_whose_patients_are_of_one_class(self):
        cases = cases_of(0, *self.subjects)
        found = [Observation(one.key, 0, one.subject, None, one.patient, (SeenVisit(0, None, {}),), 0) for one in cases]
        parts = split(cases, test_fraction=0.25)
        outcome = split_observations(found, 0.25, 0.25, 1)
        assert [names_of(part) for part in (parts.training, parts.validation, parts.test)] == [
            names_of(part) for part in outcome
        ]

    def test_pooled_folders_split_as_they_do_apart(self):
        few, all_of_them = self.subjects[:17], self.subjects
        alone = [split(cases_of(0, *part), 0.3, test_fraction=0.3) for part in (few, all_of_them)]
        pooled = split(cases_of(0, *few) + cases_of(1, *all_of_them), 0.3, test_fraction=0.3)
        for side in ("training", "validation", "test"):
            apart = [name for part in alone for name in names_of(getattr(part, side))]
            assert names_of(getattr(pooled, side)) == apart

    def test_one_person_in_two_folders_is_never_on_both_sides(self):
        first = [dataclasses.replace(case, one_person=True) for case in cases_of(0, *self.subjects)]
        second = [dataclasses.replace(case, one_person=True) for case in cases_of(1, *self.subjects)]
        parts = split([*second, *first], test_fraction=0.25)
        people = [{case.patient for case in part} for part in (parts.training, parts.validation, parts.test)]
        assert [len(one) for one in people] == [10, 5, 5]
        assert len(set.union(*people)) == 20
        assert len(parts.test) == 10
        assert set(parts.test) >= set(split(first, test_fraction=0.25).test)

    @pytest.mark.parametrize(
        ("num_patients", "fraction", "held_out"),
        [(1, 0.5, 0), (2, 0.01, 1), (2, 0.99, 1), (10, 0.25, 3), (10, 0.999, 9), (30, 0.1, 3), (20, 0.05, 1)],
    )
    def test_number_held_out(self, num_patients, fraction, held_out):
        parts = split(cases_of(0, *(f"sub-{number}" for number in range(num_patients))), fraction)
        assert (len(parts.training), len(parts.validation)) == (num_patients - held_out, held_out)

    @pytest.mark.parametrize(("num_patients", "sizes"), [(16, (12, 4, 0)), (17, (7, 5, 5)), (3, (2, 1, 0))])
    def test_a_site_whose_test_would_be_below_the_floor_keeps_none_and_splits_as_before(self, num_patients, sizes):
        cases = cases_of(0, *self.subjects[:num_patients])
        parts = split(cases, test_fraction=0.25)
        assert (len(parts.training), len(parts.validation), len(parts.test)) == sizes
        if not parts.test:
            assert parts == split(cases)
        lower = split(cases, test_fraction=0.25, min_test_patients=1)
        assert len(lower.test) >= 1

    def test_each_patient_tests_in_one_fold_and_trains_or_validates_in_the_others(self):
        cases = cases_of(0, *self.subjects[:7], visits=2) + cases_of(1, *self.subjects)
        folds = [split(cases, fold={"number": number, "of": 3}) for number in (1, 2, 3)]
        held = [case for fold in folds for case in fold.test]
        assert sorted(held, key=cases.index) == cases
        for fold in folds:
            assert sorted((*fold.training, *fold.validation, *fold.test), key=cases.index) == cases
            assert len({case.patient for case in fold.validation}) in (
                5,
                6,
                7,
            )  # a quarter of the others, in each folder
        sizes = [len({case.patient for case in fold.test}) for fold in folds]
        assert max(sizes) - min(sizes) <= 2  # one of each folder

    def test_a_site_that_is_left_out_tests_on_everybody_and_no_other_site_tests(self):
        cases = cases_of(0, *self.subjects)
        left, other = split(cases, fold={"site": "here"}), split(cases, fold={"site": "there"})
        assert (left.training, left.validation, left.test) == ([], [], cases)
        assert (len(other.training), len(other.validation), other.test) == (15, 5, [])

    def test_no_case_splits_into_nothing(self):
        assert split([], test_fraction=0.25) == CaseSplit([], [], [])
