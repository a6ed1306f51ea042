"""Figures of pipelines against scikit-learn, scipy and counting by hand."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, roc_auc_score

from msfl_server.research.small_cohort.measures import (
    against_chance,
    best_pipelines,
    effective_cases,
    measure,
    option_effects,
    permute_labels,
)
from msfl_server.research.small_cohort.space import Option


@pytest.mark.parametrize("num_classes", [2, 3])
def test_metrics_are_scikit_learns(num_classes) -> None:
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(30) % num_classes)
    scores = rng.integers(0, 4, (5, 30, num_classes)) / 4 + 1e-3 * np.arange(num_classes)  # with ties
    if num_classes == 2:
        scores[:, :, 0] = -scores[:, :, 1] + 0.7
    found = measure(scores, labels)
    average = "binary" if num_classes == 2 else "macro"
    for number, one in enumerate(scores):
        told = one.argmax(axis=1)
        auroc = np.mean([roc_auc_score(labels == label, one[:, label]) for label in range(num_classes)])
        expected = {
            "accuracy": accuracy_score(labels, told),
            "balanced_accuracy": balanced_accuracy_score(labels, told),
            "auroc": auroc,
            "f1": f1_score(labels, told, average=average),
        }
        assert {name: values[number] for name, values in found.items()} == pytest.approx(expected)


def test_an_accuracy_stands_for_as_many_cases_as_there_are_patients_that_agree() -> None:
    labels, right = np.array([0, 1, 0, 1]), np.array([[2.0, 1.0], [1.0, 2.0], [2.0, 1.0], [2.0, 1.0]])
    assert effective_cases(right[None], labels, list("abcd")).tolist() == [4.0]
    twice = np.repeat(right, 2, axis=0)[None]
    assert effective_cases(twice, np.repeat(labels, 2), list("aabbccdd")).tolist() == [4.0]
    alternating = np.tile([[2.0, 1.0], [1.0, 2.0]], (4, 1))[None]  # of each patient one row right and one wrong
    assert effective_cases(alternating, np.zeros(8, int), list("aabbccdd")).tolist() == [8.0]


def test_z_by_hand() -> None:
    chance = against_chance(0.8, np.array([0.4, 0.5, 0.6, 0.8]))
    assert chance.mean == pytest.approx(0.575)
    assert chance.deviation == pytest.approx(np.sqrt((0.175**2 + 0.075**2 + 0.025**2 + 0.225**2) / 3))
    assert chance.z == pytest.approx(0.225 / chance.deviation)
    assert chance.p == pytest.approx(2 / 5)  # one permutation did as well, and the true labels count
    assert against_chance(0.8, np.array([0.5, 0.5, 0.5])).z is None


def test_wilcoxon_by_enumeration() -> None:
    differences = np.array([0.03, -0.01, 0.05, 0.08, -0.02, 0.13, 0.21, 0.0])
    accuracy = np.concatenate([0.5 + differences, np.full(8, 0.5)])
    option = Option("row scaling", "standard", tuple((number, number + 8) for number in range(8)))
    (effect,) = option_effects(accuracy, [option])
    kept = differences[:7]  # zero_method "wilcox": the equal pair is discarded
    ranks = np.abs(kept).argsort().argsort() + 1
    smaller = min(ranks[kept > 0].sum(), ranks[kept < 0].sum())
    sums = [sum(rank for rank, sign in zip(ranks, signs, strict=True) if sign) for signs in product((0, 1), repeat=7)]
    assert effect.p == pytest.approx(2 * np.mean([total <= smaller for total in sums]))
    assert effect.median == pytest.approx(0.04)
    assert effect.num_pairs == 8
    (none,) = option_effects(np.full(16, 0.5), [option])
    assert (none.p, none.median) == (None, 0)


def test_the_best_are_by_accuracy_then_balance_then_auroc_then_the_simpler() -> None:
    table = {
        "accuracy": np.array([0.5, 0.7, 0.7, 0.7, 0.7]),
        "balanced_accuracy": np.array([0.9, 0.6, 0.7, 0.7, 0.7]),
        "auroc": np.array([0.9, 0.9, 0.5, 0.6, 0.6]),
    }
    assert best_pipelines(table, 4) == [3, 4, 2, 1]


def test_permuted_labels_stay_with_their_patients() -> None:
    labels, patients = np.array([0, 0, 1, 1, 0, 1, 1]), ("a", "a", "b", "b", "c", "d", "d")
    seen = set()
    for seed in range(40):
        permuted = permute_labels(labels, patients, np.random.default_rng(seed))
        assert permuted[0] == permuted[1]
        assert permuted[2] == permuted[3]
        assert permuted[5] == permuted[6]
        assert sorted(permuted[[0, 2, 4, 5]]) == [0, 0, 1, 1]
        seen.add(tuple(permuted))
    assert len(seen) == 6
    mixed = np.array([0, 1, 1, 1, 0, 1, 1])
    assert sorted(permute_labels(mixed, patients, np.random.default_rng(0))) == sorted(mixed)
