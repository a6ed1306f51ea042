"""What leaves a site of its scores: groups with enough patients in them, and nothing that tells a case."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from msfl_common.errors import UpdateError
from msfl_common.metrics.score_bins import (
    bin_scores,
    check_confusion,
    check_score_bins,
    disclosed_confusion,
    score_bins_shape,
)

Floats = NDArray[np.float64]


def two_classes(score: object) -> Floats:
    score_N = np.asarray(score, dtype=np.float64)
    return np.stack([1 - score_N, score_N], axis=1)


def names(num_cases: int) -> list[str]:
    return [f"p{number}" for number in range(num_cases)]


def used(cells_G3: Floats) -> Floats:
    return cells_G3[cells_G3[:, 1] > 0]


def test_groups_by_hand() -> None:
    score = [0.9, 0.1, 0.2, 0.8, 0.3, 0.7, 0.6]
    labels = np.array([1, 0, 0, 1, 1, 0, 0])
    found = bin_scores(two_classes(score), labels, names(7), 3)
    assert found.shape == (1, 10, 3) == score_bins_shape(2)
    # 0.9 0.8 0.7, then 0.6 0.3 0.2, and 0.1 which is too few joins them.
    assert used(found[0]) == pytest.approx(np.array([[0.3, 4, 1], [0.8, 3, 2]]))
    check_score_bins(found, 7, 3)


@pytest.mark.parametrize("min_patients", [1, 3, 5, 20])
@pytest.mark.parametrize("num_cases", [5, 19, 20, 137, 1000])
@pytest.mark.parametrize("decimals", [1, 8])
def test_every_group_holds_enough_patients_and_whole_ties(num_cases: int, min_patients: int, decimals: int) -> None:
    rng = np.random.default_rng(num_cases)
    score = np.round(rng.random(num_cases), decimals)
    labels = rng.integers(0, 2, num_cases)
    labels[:2] = 0, 1
    patients = [f"p{number}" for number in rng.integers(0, num_cases, num_cases)]  # some have several cases
    found = bin_scores(two_classes(score), labels, patients, min_patients)
    if len(set(patients)) < min_patients:
        assert not found.any()
        return
    check_score_bins(found, num_cases, min_patients)
    groups = used(found[0])
    assert 1 <= len(groups) <= 10
    assert groups[:, 1].sum() == num_cases
    order = np.argsort(score, kind="stable")
    start = 0
    for mean, count, positives in groups:
        chosen = order[start : start + int(count)]
        start += int(count)
        assert len({patients[index] for index in chosen}) >= min_patients
        assert mean == pytest.approx(score[chosen].mean())
        assert positives == labels[chosen].sum()
        if start < num_cases:
            assert score[order[start - 1]] < score[order[start]]


def test_groups_grow_downwards_to_ten() -> None:
    groups = used(bin_scores(two_classes(np.linspace(0, 1, 500)), np.arange(500) % 2, names(500), 5)[0])
    sizes = groups[::-1, 1]
    assert len(sizes) == 10
    assert (np.diff(sizes) >= 0).all()
    assert (sizes[0], sizes[-1]) == (25, pytest.approx(25 * 1.15**9, rel=0.05))


def test_one_patients_many_visits_are_not_many_patients() -> None:
    score = np.linspace(0.1, 0.9, 12)
    patients = ["a"] * 6 + ["b", "c", "d", "e", "f", "g"]
    groups = used(bin_scores(two_classes(score), np.arange(12) % 2, patients, 3)[0])
    assert groups[0, 1] == 6 + 3  # e, d and c make no group with a alone below them, so all of them are one


def test_few_cases_are_one_group_and_too_few_none() -> None:
    score, labels = np.linspace(0, 1, 9), np.arange(9) % 2
    assert len(used(bin_scores(two_classes(score), labels, names(9), 5)[0])) == 1
    assert not bin_scores(two_classes(score[:4]), labels[:4], names(4), 5).any()


def test_equal_scores_are_one_group() -> None:
    groups = used(bin_scores(two_classes([0.3] * 40), np.arange(40) % 2, names(40), 5)[0])
    assert groups == pytest.approx(np.array([[0.3, 40, 20]]))


def test_a_group_may_be_all_negative_but_a_site_may_not() -> None:
    score = np.linspace(0, 1, 20)
    groups = used(bin_scores(two_classes(score), (score > 0.5).astype(int), names(20), 5)[0])
    assert groups[:, 2].tolist() == [0, 0, 5, 5]
    for label in (0, 1):
        assert not bin_scores(two_classes(score), np.full(20, label), names(20), 5).any()


def test_three_classes_have_groups_each() -> None:
    rng = np.random.default_rng(0)
    probabilities, labels = rng.dirichlet((1, 1, 1), 60), rng.integers(0, 3, 60)
    found = bin_scores(probabilities, labels, names(60), 5)
    assert found.shape == (3, 10, 3) == score_bins_shape(3)
    check_score_bins(found, 60, 5)
    assert [groups[:, 2].sum() for groups in found] == np.bincount(labels).tolist()


GOOD = np.zeros((1, 10, 3))
GOOD[0, :2] = (0.2, 6, 1), (0.6, 5, 4)


def changed(row: int, column: int, value: float) -> Floats:
    bins_CG3 = GOOD.copy()
    bins_CG3[0, row, column] = value
    return bins_CG3


def test_good_cells_pass() -> None:
    check_score_bins(GOOD, 11, 5)
    check_score_bins(np.zeros((1, 10, 3)), 11, 5)


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (changed(1, 1, 4), "at least 5 cases in a group, found 4"),
        (changed(1, 1, -5), "at least 5 cases"),
        (changed(0, 1, 7), "11 cases in all groups or none, found 12"),
        (changed(0, 1, 6.5), "whole numbers"),
        (changed(0, 2, 0.5), "whole numbers"),
        (changed(0, 2, 7), "no more positive cases"),
        (changed(0, 2, -1), "none below 0"),
        (changed(0, 0, 0.7), "rising scores"),
        (changed(1, 0, 1.2), "between 0 and 1"),
        (changed(0, 0, -0.1), "between 0 and 1"),
        (changed(4, 0, 0.3), "first, then zeros"),
        (changed(0, 1, 0), "first, then zeros"),
        (changed(5, 1, 5), "first, then zeros"),
    ],
)
def test_cells_that_no_site_may_send_are_refused(found: Floats, reason: str) -> None:
    with pytest.raises(UpdateError, match=reason):
        check_score_bins(found, 11, 5)


def test_a_confusion_matrix_is_told_unless_few_are_given_a_class() -> None:
    predicted, labels = np.repeat([0, 1], [12, 5]), np.arange(17) % 2
    matrix = disclosed_confusion(predicted, labels, names(17), 5, 2)
    assert matrix is not None
    assert matrix.tolist() == [[6, 3], [6, 2]]
    check_confusion(matrix, 17)
    assert disclosed_confusion(predicted, labels, names(17), 6, 2) is None
    nobody = disclosed_confusion(np.zeros(17, np.int64), labels, names(17), 5, 2)
    assert nobody is not None
    assert nobody.tolist() == [[9, 0], [8, 0]]
    assert disclosed_confusion(predicted, labels, [*names(12), *(["z"] * 5)], 2, 2) is None  # one patient, five visits


@pytest.mark.parametrize("matrix", [[[9, 3], [4, 2]], [[9.5, 2.5], [3, 2]], [[18, -1], [0, 0]]])
def test_a_confusion_matrix_that_does_not_add_up_is_refused(matrix: list[list[float]]) -> None:
    with pytest.raises(UpdateError, match="confusion"):
        check_confusion(np.array(matrix), 17)
