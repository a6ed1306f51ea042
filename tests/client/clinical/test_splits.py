"""Splits of a site: patients stay whole, classes even, folds apart."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from msfl_client.clinical.observations import Observation, SeenVisit
from msfl_client.clinical.splits import held_out, split_observations, split_patients
from msfl_client.data.bids import patient_key
from msfl_common.config.study import StudyConfig, Validation


def observation(number: int, label: int, dataset: int = 0, visit: int = 0) -> Observation:
    name = f"sub-{number:03d}"
    who = patient_key(name, dataset, one_person=False)
    return Observation(f"{dataset} {name} {visit}", dataset, name, None, who, (SeenVisit(0, None, {}),), label)


def test_split_by_patient_with_classes_in_every_part() -> None:
    found = [observation(n, int(n < 10), visit=visit) for n in range(50) for visit in range(2)]
    parts = split_observations(found, 0.2, 0.2, seed=3)
    assert [len(part) for part in parts] == [60, 20, 20]
    patients = [{one.patient for one in part} for part in parts]
    assert sum(map(len, patients)) == 50 == len(set.union(*patients))
    assert [Counter(one.label for one in part)[1] for part in parts] == [12, 4, 4]
    again = split_observations(found[::-1], 0.2, 0.2, seed=3)
    assert [{one.key for one in part} for part in again] == [{one.key for one in part} for part in parts]
    other = split_observations(found, 0.2, 0.2, seed=4)
    assert {one.key for one in other[2]} != {one.key for one in parts[2]}


def test_split_of_pooled_folders_is_that_of_each() -> None:
    here = [observation(n, n % 3 == 0) for n in range(20)]
    there = [replace(one, dataset=1, key=f"1{one.key}", patient=f"{one.patient}_data-1") for one in here[:7]]
    for pooled, alone in zip(
        split_observations([*here, *there], 0.25, 0.25, 0), split_observations(here, 0.25, 0.25, 0), strict=True
    ):
        assert [one for one in pooled if one.dataset == 0] == alone


def test_one_person_in_two_folders_is_never_split() -> None:
    here = [observation(n, n % 3 == 0) for n in range(20)]
    twins = [replace(one, dataset=1, key=f"1{one.key}") for one in here]
    for parts in (
        split_observations([*twins, *here], 0.25, 0.25, 0),
        [held_out([*here, *twins], n, 4, 0) for n in range(1, 5)],
    ):
        patients = [{one.patient for one in part} for part in parts]
        assert sum(map(len, patients)) == 20 == len(set.union(*patients))
        assert all(len(part) == 2 * len(of) for part, of in zip(parts, patients, strict=True))
    alone = split_observations(here, 0.25, 0.25, 0)
    together = split_observations([*here, *twins], 0.25, 0.25, 0)
    assert [[one for one in part if not one.dataset] for part in together] == list(alone)


@pytest.mark.parametrize(("patients", "sizes"), [(0, (0, 0, 0)), (1, (1, 0, 0)), (2, (1, 0, 1)), (3, (1, 1, 1))])
def test_split_of_few(patients: int, sizes: tuple[int, int, int]) -> None:
    parts = split_observations([observation(n, n % 2) for n in range(patients)], 0.9, 0.9, 0)
    assert tuple(map(len, parts)) == sizes


def study_of(**fold: object) -> StudyConfig:
    return StudyConfig(
        name="folds",
        task="classification",
        validation=Validation(fraction=0.2),
        classification={
            "outcome": {"column": "label"},
            "clinical": ["age"],
            "model": {"kind": "lda"},
            "fold": fold or None,
        },
    )


def patients_of(part: list[Observation]) -> set[tuple[int, str]]:
    return {(one.dataset, one.subject) for one in part}


def test_every_patient_is_in_one_fold_and_classes_are_even() -> None:
    here = [observation(n, n < 13, visit=visit) for n in range(50) for visit in range(1 + n % 2)]
    there = [observation(n, n % 3, dataset=1) for n in range(11)]
    folds = [held_out([*here, *there], number, 4, seed=7) for number in range(1, 5)]
    assert sum(map(len, folds)) == len(here) + len(there)
    assert sorted(who for fold in folds for who in patients_of(fold)) == sorted(patients_of([*here, *there]))
    for part in (here, there):
        dealt = [[one for one in fold if one in part] for fold in folds]
        assert [one for one in part if one in dealt[0]] == dealt[0]  # in the order given
        counts = [Counter(label for _, label in {(one.subject, one.label) for one in fold}) for fold in dealt]
        for label in {one.label for one in part}:
            assert max(count[label] for count in counts) - min(count[label] for count in counts) <= 1
        sizes = [count.total() for count in counts]
        assert max(sizes) - min(sizes) <= 1
    assert held_out(here[::-1], 2, 4, seed=7)[::-1] == [one for one in folds[1] if one in here]
    assert held_out(here, 2, 4, seed=8) != [one for one in folds[1] if one in here]


def test_who_is_not_held_out_trains_or_validates() -> None:
    found = [observation(n, n < 15, visit=visit) for n in range(60) for visit in range(2)]
    for number in range(1, 6):
        parts = split_patients(found, study_of(number=number, of=5), "a")
        assert [len(patients_of(part)) for part in parts.each] == [38, 10, 12]
        assert [Counter(one.label for one in part)[1] // 2 for part in parts.each] == pytest.approx([9, 3, 3], abs=1)
        assert len(set().union(*map(patients_of, parts.each))) == 60
        assert parts.test == held_out(found, number, 5, 0)


def test_a_site_left_out_tests_on_everybody_and_the_others_on_nobody() -> None:
    found, study = [observation(n, n % 4 == 0) for n in range(20)], study_of(site="a")
    assert split_patients(found, study, "a").each == ([], [], found)
    others = split_patients(found, study, "b")
    assert [len(part) for part in others.each] == [16, 4, 0]
    assert Counter(one.label for one in others.validation) == {0: 3, 1: 1}


def test_without_a_fold_the_share_of_test_patients_decides() -> None:
    found = [observation(n, n % 2) for n in range(40)]
    assert split_patients(found, study_of(), "a").each == split_observations(found, 0.2, 0.25, 0)
