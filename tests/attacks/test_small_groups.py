"""Attacks on the sums by way of small groups: the one man, the one lesion, the small class are in none of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from msfl_client.classification.feature_models.contribution import contribute
from msfl_client.classification.feature_models.sums import class_sums
from msfl_client.disclosure.hinge_cases import settled_cases
from msfl_client.disclosure.releases import expect_unknowns, fewest_numbers
from msfl_client.disclosure.small_groups import describe_small_group, expect_carried, in_large_groups
from msfl_client.harmonization.combat import (
    Rows,
    apply_fit,
    check_effects,
    compute_moments,
    compute_residuals,
    fit_scanners,
    large_groups_of_scanners,
)
from msfl_common.config.classification import Classification
from msfl_common.config.feature_catalogue import FEATURES
from msfl_common.config.study import Harmonization
from msfl_common.dataset import Dataset
from msfl_common.errors import Code, RefusedError
from msfl_common.harmonization import Reference
from tests.attacks.feature_sites import (
    DIRECTION,
    INPUTS,
    Site,
    bare_logistic,
    begun,
    cases,
    going_on,
    play,
    refused,
    rows_of,
    study,
    unguarded,
)
from tests.common.config.test_clinical_values import TREATMENT
from tests.feature_models import design, make_cases, make_settings

__all__ = ["cases"]


def with_few_men(cases: Dataset, num_men: int, column: int = 0) -> Dataset:
    values = cases.features_NP.copy()
    values[:, column] = 0.0
    values[:num_men, column] = 1.0
    return replace(cases, features_NP=values)


@pytest.mark.parametrize("num_men", [1, 4])
def test_the_one_man_among_many_is_not_in_the_first_newton_step(
    cases: dict[str, Dataset], tmp_path: Path, num_men: int
) -> None:
    settings = study("logistic")
    few = with_few_men(cases["site-0"], num_men)
    sites = {name: with_few_men(one, 20) for name, one in cases.items()} | {"site-0": few}
    _, state = begun(settings, sites, tmp_path)
    curved = bare_logistic(settings, few)(state)["curvature"][0]  # a quarter of the products, all weights being equal
    one, off = float(state["projection"][0, 0]), float(state["mean"][0] * state["projection"][0, 0])
    sum_of_men = 4 * (curved[0] + off * curved[-1]) / one
    prepared = rows_of(settings, state, few)
    np.testing.assert_allclose(sum_of_men[:-1], prepared[:num_men].sum(axis=0), atol=1e-9)  # with one man, his row
    kept = in_large_groups(settings, few, 5)
    assert kept.features_NP[:, 0].max() == 0
    assert len(kept.labels_N) == len(few.labels_N) - num_men
    with pytest.raises(RefusedError, match=rf"{num_men} training patients? whom {settings.inputs[0]} sets apart"):
        contribute(settings, state, few, 0, 1, 5)


def test_those_who_are_left_out_are_told_to_the_sites_people(cases: dict[str, Dataset], tmp_path: Path) -> None:
    site = Site(study("logistic"), with_few_men(cases["site-0"], 3), tmp_path)
    assert site.learner.num_train_cases == 52
    assert site.told == [
        "3 of 55 training cases left out of groups that are too small: 3 training patients whom brain_volume_ml sets "
        "apart; expected none, or at least 5"
    ]


def test_the_one_with_a_new_lesion_is_left_out(cases: dict[str, Dataset]) -> None:
    settings, one = study("lda"), with_few_men(cases["site-0"], 3)
    one.features_NP[:3, 0] = [0.7, 2.1, 3.3]
    assert len(in_large_groups(settings, one, 5).labels_N) == 52
    assert len(in_large_groups(settings, one, 3).labels_N) == 55


def with_treatment(cases: Dataset, num_untreated: int) -> tuple[Classification, Dataset]:
    """A study of a feature and a category, and a site whose patients are on its first, second and third level."""
    section = {
        "outcome": {"column": "course", "classes": ["c0", "c1"]},
        "features": [cases.names[0]],
        "clinical": ["treatment"],
        "declared": [TREATMENT],
        "model": {"kind": "lda"},
    }
    settings, half = Classification.model_validate(section), (55 - num_untreated) // 2
    levels_NL = np.zeros((55, 2))
    levels_NL[num_untreated : num_untreated + half, 0] = levels_NL[num_untreated + half :, 1] = 1.0
    names = (cases.names[0], "treatment_injection", "treatment_infusion")
    return settings, replace(cases, names=names, features_NP=np.column_stack([cases.features_NP[:, 0], levels_NL]))


@pytest.mark.parametrize("num_untreated", [1, 3])
def test_the_one_on_a_categorys_first_level_is_left_out(cases: dict[str, Dataset], num_untreated: int) -> None:
    """No input is theirs alone: both are 0. A measured value, which is anybody's own, is not what is named."""
    settings, few = with_treatment(cases["site-0"], num_untreated)
    assert in_large_groups(settings, few, 5).patients == few.patients[num_untreated:]
    patients = f"{num_untreated} training patient{'s' * (num_untreated > 1)}"
    assert (
        describe_small_group(settings, few, 5) == f"{patients} whom treatment sets apart; expected none, or at least 5"
    )


def test_a_category_is_one_unknown_of_a_patient(cases: dict[str, Dataset]) -> None:
    """Seven patients of two values are 14 unknowns, of however many inputs, for more numbers than that."""
    settings, one = with_treatment(cases["site-0"], 15)
    numbers = fewest_numbers(settings)
    num_cases = numbers // 2
    few = replace(
        one,
        features_NP=one.features_NP[:num_cases],
        labels_N=one.labels_N[:num_cases],
        patients=one.patients[:num_cases],
    )
    assert 2 * num_cases <= numbers < 3 * num_cases
    with pytest.raises(RefusedError, match=f"{num_cases} training cases of 2 inputs are {2 * num_cases} unknowns"):
        expect_unknowns(settings, few)


def test_a_small_class_is_left_out_as_if_it_were_not_there(cases: dict[str, Dataset]) -> None:
    settings, one = study("lda"), cases["site-0"]
    keep = np.r_[np.flatnonzero(one.labels_N == 0), np.flatnonzero(one.labels_N == 1)[:4]]
    few = Dataset(one.names, one.features_NP[keep], one.labels_N[keep], tuple(np.array(one.patients)[keep]))
    kept = in_large_groups(settings, few, 5)
    assert set(kept.labels_N.tolist()) == {0}
    contribute(settings, play(settings, {}, 0)[0], kept, 0, 1, 5)


def test_the_one_man_of_a_class_is_not_in_its_scatter(cases: dict[str, Dataset]) -> None:
    settings = make_settings({"kind": "naive-bayes"}, INPUTS, reduction="pca", num_components=3)
    one = cases["site-0"]
    values = one.features_NP.copy()
    values[:, 0] = (one.labels_N == 0) & (np.arange(55) % 2)
    values[np.flatnonzero(one.labels_N == 1)[0], 0] = 1.0
    odd = replace(one, features_NP=values)
    sums = class_sums(settings, odd.features_NP, odd.labels_N)
    mean = sums["sums"][1] / sums["counts"][1]
    man = np.flatnonzero((one.labels_N == 1) & (values[:, 0] == 1))
    read = sums["scatter"][1][0] + sums["counts"][1] * mean[0] * mean  # sum of sex times inputs: of one man, his row
    np.testing.assert_allclose(read, values[man[0]], rtol=1e-6)
    assert odd.patients[man[0]] not in in_large_groups(settings, odd, 5).patients
    assert odd.patients[man[0]] in in_large_groups(study("lda"), odd, 5).patients  # whose scatter is of all classes


def test_fewer_unknowns_than_numbers_are_refused(tmp_path: Path) -> None:
    for kind, sizes in (("logistic", (9, 40, 40)), ("lda", (8, 40, 40))):
        settings = make_settings({"kind": kind}, 8)
        few = make_cases(5, sizes, 8)["site-0"]
        few = replace(few, labels_N=np.zeros_like(few.labels_N))
        with pytest.raises(RefusedError, match="unknowns"):
            Site(settings, few, tmp_path / kind).ask(play(settings, {}, 0)[0])


def test_random_features_that_outnumber_the_patients_are_refused(cases: dict[str, Dataset], tmp_path: Path) -> None:
    settings = study("svm-rbf")  # 200 of them: the plane of the rows' images meets the images in the rows alone
    with pytest.raises(RefusedError, match="fewer inputs or random features") as error:
        Site(settings, cases["site-0"], tmp_path).ask(play(settings, {}, 0)[0])
    assert error.value.code is Code.TOO_FEW_PATIENTS


def test_sums_that_few_patients_carry_are_refused(cases: dict[str, Dataset], tmp_path: Path) -> None:
    settings = study("logistic")
    site, state = begun(settings, cases, tmp_path)
    far = going_on(state, coefficients=np.append(6 * DIRECTION, -20.0)[None])  # beyond all but the last patients
    assert "scores" in refused(site, far)
    with pytest.raises(RefusedError, match=r"carried by \d\.\d patients, at least 5 needed"):  # bounds or not
        contribute(settings, far, cases["site-0"], 0, 1, 5)
    patients = np.arange(12).astype(str)
    group, one = patients.astype(int) < 6, np.ones((12, 1))
    expect_carried({"curvature": one, "gradient": one}, patients, [group, ~group], 5)
    one[0] = 5.5  # of 12 patients he carries a third, and of his group more than half
    expect_carried({"gradient": one}, patients, [group], 5)
    expect_carried({"curvature": one}, patients, [~group], 5)
    with pytest.raises(RefusedError, match="one patient carries more than half"):
        expect_carried({"curvature": one}, patients, [group], 5)
    with pytest.raises(RefusedError, match="carried by"):  # two visits are of one patient
        expect_carried({"gradient": np.ones((12, 1))}, np.repeat(patients[:4], 3), [], 5)


def test_a_hinge_takes_no_set_that_is_near_one_it_told() -> None:
    """Nearest to which it stays; nobody, too, is a set that is told."""
    number = np.arange(12)
    patients = number.astype(str)

    def settled(*sets: object, groups: Sequence[object] = ()) -> list[int]:
        shorts = [np.where(np.isin(number, np.asarray(one)), 1.0, -1.0)[:, None] for one in sets]
        apart = [np.isin(number, np.asarray(one)) for one in groups]
        return list(number[settled_cases(shorts, patients, apart, 5)[:, 0]])

    six, seven = [*range(6)], [*range(7)]
    assert settled([0, 1, 2]) == []
    assert settled(six) == six
    assert settled(six, seven) == six
    assert settled(six, number, seven) == six  # far enough from the last, and one off the first
    assert settled(six, groups=[[5, *range(6, 12)]]) == []  # of a group, one alone would come


def rows(num_men: int, scanners: int = 1) -> Rows:
    rng = np.random.default_rng(0)
    covariates = np.column_stack([rng.uniform(20, 60, 42), np.arange(42) < num_men]).astype(np.float32)
    features = rng.normal(size=(42, 3)) + 5
    return Rows(("bpf", "gm_ml", "wm_ml"), features, covariates, tuple(f"s{n % scanners}" for n in range(42)))


def test_the_one_mans_volumes_are_not_in_combats_sums() -> None:
    one = rows(1)
    cross, residuals = compute_moments(one).cross_QP, compute_residuals(one, np.zeros((2, 3)))
    mean = residuals.intercepts_P / 42
    np.testing.assert_allclose(cross[1] + mean, one.features_NP[0], rtol=1e-6)  # what a coordinator reads today
    patients = np.arange(42).astype(str)
    assert not large_groups_of_scanners(one, patients, 5)[0]
    assert large_groups_of_scanners(one, patients, 5)[1:].all()
    assert large_groups_of_scanners(rows(5), patients, 5).all()
    assert large_groups_of_scanners(rows(10, scanners=2), patients, 5).all()
    assert large_groups_of_scanners(rows(4, scanners=2), patients, 5).tolist() == [False] * 4 + [True] * 38


@pytest.mark.parametrize("scanners", [1, 3])
def test_whom_age_and_sex_together_set_apart_is_not_in_combats_sums(scanners: int) -> None:
    """The one man of another age, where women are of one age and men of one."""
    one, patients = rows(21, scanners), np.arange(42).astype(str)
    one.covariates_NQ[:, 0] = np.where(one.covariates_NQ[:, 1] == 1, 40, 30)
    assert large_groups_of_scanners(one, patients, 5).all()
    one.covariates_NQ[6, 0] = 55
    weighted_P = (np.array([1, -10]) @ compute_moments(one).cross_QP) / 15
    of_scanner_P = one.features_NP[np.arange(42) % scanners == 6 % scanners].mean(axis=0)
    np.testing.assert_allclose(weighted_P + of_scanner_P, one.features_NP[6])  # as a coordinator read
    assert large_groups_of_scanners(one, patients, 5).tolist() == [number != 6 for number in range(42)]


def test_a_scanner_of_few_patients_is_none_that_sets_them_apart() -> None:
    one, patients = rows(21), np.arange(42).astype(str)
    of_few = replace(one, scanners=("small",) * 3 + ("large",) * 39)
    assert large_groups_of_scanners(of_few, patients, 5).all()
    of_several = replace(one, scanners=tuple(f"small-{number // 3}" for number in range(12)) + ("large",) * 30)
    assert large_groups_of_scanners(of_several, patients, 5).all()


def test_the_one_with_lesions_is_not_in_combats_sums() -> None:
    one = rows(0)
    one.features_NP[:, 1] = 0
    one.features_NP[7, 1] = 3.0
    kept = large_groups_of_scanners(one, np.arange(42).astype(str), 5)
    assert kept.tolist() == [number != 7 for number in range(42)]


def test_whoever_is_far_out_in_a_feature_is_not_in_combats_sums() -> None:
    """His values are nearly all of the feature's sums of products with age and sex, and their size is its squares'."""
    one, patients = rows(21), np.arange(42).astype(str)
    one.features_NP[7, 1] += 80
    squares_P = compute_residuals(one, np.zeros((2, 3))).squares_P
    read_Q = compute_moments(one).cross_QP[:, 1] / np.sqrt(squares_P[1] * (1 - 1 / 42))
    columns_NQ = one.covariates_NQ.astype(np.float64)
    z_NQ = (columns_NQ - columns_NQ.mean(axis=0)) / columns_NQ.std(axis=0)
    assert np.abs(read_Q / columns_NQ.std(axis=0) - z_NQ[7]).max() < 0.1  # as a coordinator read: a year of his age
    kept_N = large_groups_of_scanners(one, patients, 5)
    assert kept_N.tolist() == [number != 7 for number in range(42)]
    one.features_NP[:, 1] = 0.1  # of three such values the mean is another by its last bit
    of_two = replace(one, scanners=("small",) * 3 + ("large",) * 39)
    assert large_groups_of_scanners(of_two, patients, 5).all()


def of_sex(slope: float, variances: Sequence[float]) -> Reference:
    """A reference that adds so much to a man's first feature."""
    size = len(variances)
    return Reference(
        study="few-men",
        settings=Harmonization(method="combat", features=tuple(FEATURES)[:size]),
        columns=("age", "sex"),
        slopes=((0.0,) * size, (slope, *(0.0,) * (size - 1))),
        grand_mean=(0.0,) * size,
        pooled_variance=tuple(variances),
        num_cases=100,
        num_scanners=2,
        num_sites=2,
    )


def test_a_reference_that_writes_sex_into_a_feature_is_refused(cases: dict[str, Dataset]) -> None:
    """Two steps would read the one man, of whom no group of the features tells: he alone spans one, and is left out."""
    settings, raw = study("logistic"), cases["site-0"]
    covariates = np.column_stack([np.linspace(20, 60, 55), np.arange(55) == 7]).astype(np.float32)
    one = Rows(tuple(FEATURES)[:1], raw.features_NP[:, :1].copy(), covariates, ("scanner",) * 55)
    crafted = of_sex(1e12, [1.0])
    values = raw.features_NP.copy()
    values[:, :1] = apply_fit(one, fit_scanners(one, crafted), crafted)
    odd = replace(raw, features_NP=values)
    assert in_large_groups(settings, odd, 5).patients == (*odd.patients[:7], *odd.patients[8:])
    state, answered = unguarded(settings, {"site-0": odd}, 1)[-1], bare_logistic(settings, odd)
    inputs = design(settings, state, values)
    man, woman = inputs[7, 0], inputs[0, 0]
    slope = 2 / (man - woman)  # he scores 2, and each woman 0
    line = np.zeros((1, INPUTS + 1))
    line[0, 0], line[0, -1] = slope, -slope * woman
    before = answered(state)["curvature"][0][-1]
    after = answered(going_on(state, coefficients=line))["curvature"][0][-1]
    his = before - after
    np.testing.assert_allclose(his / his[-1], inputs[7], rtol=1e-6)
    with pytest.raises(RefusedError, match="slopes for") as error:
        check_effects(one, values[:, :1], crafted)
    assert error.value.code is Code.BAD_STUDY


@pytest.mark.parametrize(
    "crafted", [of_sex(1e6, [1.0] * 3), of_sex(1.0, [1e-20, 1.0, 1.0]), of_sex(30.0, [1.0, *[1e-20] * 9])]
)
def test_a_feature_that_is_flattened_but_for_sex_is_refused(crafted: Reference) -> None:
    rng, names = np.random.default_rng(0), crafted.settings.feature_names
    covariates = np.column_stack([rng.uniform(20, 60, 42), np.arange(42) == 7]).astype(np.float32)
    rows = Rows(names, rng.normal(10, 2, (42, len(names))), covariates, ("one",) * 20 + ("two",) * 22)
    brought = apply_fit(rows, fit_scanners(rows, crafted), crafted)
    with pytest.raises(RefusedError, match=f"slopes for {names[0]}"):
        check_effects(rows, brought, crafted)
    fair = of_sex(2.0, [4.0] * len(names))
    check_effects(rows, apply_fit(rows, fit_scanners(rows, fair), fair), fair)
