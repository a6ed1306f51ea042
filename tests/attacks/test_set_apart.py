"""Attacks on the sums by weights of several columns: whom these tell from all others is in none of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from msfl_client.disclosure.set_apart import in_small_cells, set_apart
from msfl_client.disclosure.small_groups import describe_small_group, in_large_groups
from msfl_common.config.classification import Classification
from msfl_common.config.feature_catalogue import FEATURES
from msfl_common.dataset import Dataset
from tests.attacks.feature_sites import cases, study
from tests.attacks.test_small_groups import with_few_men, with_treatment

__all__ = ["cases"]
TREATED_LESS_LEVELS = np.array([0, 1, -1, -1])


def with_treated(cases: Dataset, wrongly: Sequence[int], kind: str = "lda") -> tuple[Classification, Dataset]:
    """A feature, whether a patient is treated, and with what; some are treated with nothing."""
    settings, few = with_treatment(cases, 15)
    section = settings.model_dump() | {"clinical": ["treated", "treatment"], "model": {"kind": kind}}
    values_NP = np.insert(few.features_NP, 1, few.features_NP[:, 1:].sum(axis=1), axis=1)
    values_NP[wrongly, 1] = 1.0
    names = (few.names[0], "treated", *few.names[1:])
    odd = replace(few, names=names, features_NP=values_NP, labels_N=np.zeros_like(few.labels_N))
    return Classification.model_validate(section), odd


def without(cases: Dataset, places: Sequence[int]) -> tuple[str, ...]:
    return tuple(np.delete(np.array(cases.patients), places))


@pytest.mark.parametrize("kind", ["lda", "naive-bayes"])
@pytest.mark.parametrize("odd", [[7], [3, 11], [0, 5, 9, 14]])
def test_those_whom_several_inputs_set_apart_are_left_out(cases: dict[str, Dataset], kind: str, odd: list[int]) -> None:
    """Of those on no treatment's level some are treated: no input alone tells so, and a difference of three does."""
    settings, site = with_treated(cases["site-0"], odd, kind)
    values_NP = site.features_NP
    read = values_NP.T @ values_NP @ TREATED_LESS_LEVELS
    np.testing.assert_allclose(read, values_NP[odd].sum(axis=0), rtol=1e-9)
    assert in_large_groups(settings, site, 5).patients == without(site, odd)
    patients = f"{len(odd)} training patient{'s' * (len(odd) > 1)}"
    said = f"{patients} whom several inputs together set apart; expected none, or at least 5"
    assert describe_small_group(settings, site, 5) == said
    assert describe_small_group(settings, site, len(odd)) is None


def test_as_many_as_the_floor_are_kept(cases: dict[str, Dataset]) -> None:
    settings, site = with_treated(cases["site-0"], [0, 3, 5, 9, 14])
    assert in_large_groups(settings, site, 5).patients == site.patients


def test_one_whom_the_classes_and_an_input_set_apart_is_left_out(cases: dict[str, Dataset]) -> None:
    """The class is of the treated but one, whose values are the sum of the treated less the class's."""
    treated = np.arange(55) < 25
    odd = replace(with_few_men(cases["site-0"], 25), labels_N=(treated & (np.arange(55) != 7)).astype(np.int64))
    read = odd.features_NP.T @ treated - odd.features_NP[odd.labels_N == 1].sum(axis=0)
    np.testing.assert_allclose(read, odd.features_NP[7], rtol=1e-6)
    assert in_large_groups(study("lda"), odd, 5).patients == without(odd, [7])


def test_as_many_inputs_as_patients_hide_nobody(cases: dict[str, Dataset]) -> None:
    """Measured values span everything then; those of few values still tell one apart, by weights that are known."""
    settings, few = with_treated(cases["site-0"], [7])
    features = tuple(FEATURES)[:52]
    measured_NP = np.random.default_rng(0).normal(size=(55, 52))
    values_NP = np.column_stack([measured_NP, few.features_NP[:, 1:]])
    odd = replace(few, names=(*features, *few.names[1:]), features_NP=values_NP)
    settings = Classification.model_validate(settings.model_dump() | {"features": features})
    assert in_large_groups(settings, odd, 5).patients == without(odd, [7])


def test_one_visit_that_several_inputs_set_apart_leaves_its_patient_out(cases: dict[str, Dataset]) -> None:
    settings, odd = with_treated(cases["site-0"], [7])
    odd = replace(odd, patients=tuple(f"sub-{number % 27:02}" for number in range(55)))
    kept = in_large_groups(settings, odd, 5)
    assert {*odd.patients} - {*kept.patients} == {"sub-07"}
    assert len(kept.labels_N) == 53


@pytest.mark.parametrize("num_inputs", [5, 30, 52])
def test_nobody_is_set_apart_by_values_that_are_nobodys(num_inputs: int) -> None:
    """Sex, a course of four, EDSS and measured values of 60 patients."""
    rng = np.random.default_rng(num_inputs)
    levels_NL = np.equal.outer(rng.integers(0, 4, 60), [1, 2, 3]).astype(float)
    given = [rng.integers(0, 2, 60), levels_NL, rng.integers(0, 15, 60) / 2, rng.normal(size=(60, num_inputs))]
    patients_N = np.array([f"sub-{number:02}" for number in range(60)])
    assert set_apart(np.column_stack(given), rng.integers(0, 2, 60), patients_N, 5) is None


def test_one_with_a_value_far_from_all_others_is_left_out(cases: dict[str, Dataset]) -> None:
    """The column's products are the patient's row times that value, and next to nothing of others."""
    one = cases["site-0"]
    values_NP = one.features_NP.copy()
    values_NP[7, 0] += 1e4 * values_NP[:, 0].std()
    far_N = values_NP[:, 0] - np.delete(values_NP[:, 0], 7).mean()
    np.testing.assert_allclose(values_NP.T @ far_N / far_N[7], values_NP[7], rtol=0.1)
    assert in_large_groups(study("lda"), replace(one, features_NP=values_NP), 5).patients == without(one, [7])
    said = describe_small_group(study("lda"), replace(one, features_NP=values_NP), 5)
    assert said == "1 training patient with a brain_volume_ml far from all others; expected none, or at least 5"


def test_two_in_another_unit_are_left_out(cases: dict[str, Dataset]) -> None:
    """Volumes in mm3 for ml: with two such columns, both rows could be solved out of the sums."""
    one = cases["site-0"]
    values_NP = one.features_NP.copy()
    values_NP[:2, :3] *= 1000
    assert in_large_groups(study("lda"), replace(one, features_NP=values_NP), 5).patients == without(one, [0, 1])


def test_one_whom_nearly_equal_columns_set_apart_is_left_out() -> None:
    """Age is the age at onset and years since, nearly: in one patient by ten years more."""
    rng = np.random.default_rng(0)
    onset_N, since_N = rng.normal(30, 8, 55), rng.gamma(2, 4, 55)
    age_N = onset_N + since_N + rng.uniform(-0.02, 0.02, 55)
    age_N[7] += 10
    columns_NP = np.column_stack([age_N, onset_N, since_N, rng.normal(size=(55, 6))])
    read = columns_NP.T @ (age_N - onset_N - since_N) / 10
    np.testing.assert_allclose(read[3:], columns_NP[7, 3:], atol=0.1)
    found_N = set_apart(columns_NP, np.zeros(55, np.int64), np.arange(55).astype(str), 5)
    assert found_N is not None
    assert np.flatnonzero(found_N).tolist() == [7]


def test_in_a_class_of_few_cases_measured_values_are_not_few() -> None:
    """Sixteen cases and as many columns: treated less two levels is one patient's still."""
    rng = np.random.default_rng(0)
    level_N = np.arange(16) % 3
    levels_NL = np.equal.outer(level_N, [1, 2]).astype(float)
    treated_N = levels_NL.sum(axis=1)
    treated_N[0] = 1.0
    columns_NP = np.column_stack([treated_N, levels_NL, rng.normal(size=(16, 13))])
    found_N = set_apart(columns_NP, np.zeros(16, np.int64), np.arange(16).astype(str), 5)
    assert found_N is not None
    assert np.flatnonzero(found_N).tolist() == [0]


@pytest.mark.parametrize("odd", [[3, 11], [2, 5, 9, 14]])
def test_few_with_many_visits_each_are_found(odd: list[int]) -> None:
    """Age is exactly the age at onset and years since but in these; 60 more inputs, eight visits a patient."""
    rng = np.random.default_rng(1)
    patients_N = np.repeat(np.arange(18), 8).astype(str)
    onset_N, since_N = rng.normal(30, 8, 144), rng.gamma(2, 4, 144)
    age_N = onset_N + since_N + 3 * np.isin(patients_N, [str(one) for one in odd]) * rng.normal(size=144)
    columns_NP = np.column_stack([age_N, onset_N, since_N, rng.normal(size=(144, 60))])
    found_N = set_apart(columns_NP, np.zeros(144, np.int64), patients_N, 5)
    assert found_N is not None
    assert {*patients_N[found_N]} == {str(one) for one in odd}


def test_where_products_are_summed_powers_of_a_value_are_looked_at(cases: dict[str, Dataset]) -> None:
    one = cases["site-0"]
    values_NP = np.random.default_rng(0).normal(size=one.features_NP.shape)
    values_NP[7, 0] = 7.0
    odd = replace(one, features_NP=values_NP)
    settings = Classification.model_validate(
        study("svm-poly").model_dump() | {"model": {"kind": "svm-poly", "degree": 5}}
    )
    assert in_large_groups(study("lda"), odd, 5).patients == one.patients
    assert in_large_groups(settings, odd, 5).patients == without(one, [7])


def test_where_products_are_summed_cells_of_few_are_left_out(cases: dict[str, Dataset]) -> None:
    """Both columns have large groups, and two patients are in the cell where they cross."""
    one = cases["site-0"]
    values_NP = one.features_NP.copy()
    values_NP[:, 0], values_NP[:, 1] = np.arange(55) < 20, (np.arange(55) >= 18) & (np.arange(55) < 45)
    odd = replace(one, features_NP=values_NP)
    assert in_large_groups(study("svm-rbf"), odd, 5).patients == one.patients
    assert in_large_groups(study("svm-poly"), odd, 5).patients == without(one, [18, 19])
    said = describe_small_group(study("svm-poly"), odd, 5)
    assert said == "2 training patients whom products of inputs set apart; expected none, or at least 5"


def test_levels_cross_as_far_as_the_degree_goes() -> None:
    """Of three yes-no columns no two have a small cell; products of three, and a level of three, have."""
    corners_8C = np.array(list(np.ndindex(2, 2, 2)), dtype=float)
    odd_NC = np.vstack([np.repeat(corners_8C[1:], 6, axis=0), corners_8C[:1]])
    patients_N = np.array([f"sub-{number:02}" for number in range(len(odd_NC))])
    assert in_small_cells(odd_NC, patients_N, 5, degree=2) is None
    found_N = in_small_cells(odd_NC, patients_N, 5, degree=3)
    assert found_N is not None
    assert np.flatnonzero(found_N).tolist() == [42]
    levels_N1 = np.repeat([0.0, 1.0, 2.0], [30, 11, 2])[:, None]
    assert in_small_cells(levels_N1, patients_N, 5, degree=1) is None
    found_N = in_small_cells(levels_N1, patients_N, 5, degree=2)
    assert found_N is not None
    assert found_N.sum() == 2


def test_a_site_without_cases_sets_nobody_apart(cases: dict[str, Dataset]) -> None:
    one = cases["site-0"]
    none = replace(one, features_NP=one.features_NP[:0], labels_N=one.labels_N[:0], patients=())
    assert in_large_groups(study("svm-poly"), none, 5).patients == ()
