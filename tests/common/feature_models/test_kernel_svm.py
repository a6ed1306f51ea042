"""Kernels' features, held against the kernels and against scikit-learn's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.kernel_approximation import Nystroem
from sklearn.metrics.pairwise import polynomial_kernel, rbf_kernel
from tests.feature_models import make_cases, make_settings, play

from msfl_common.feature_models.kernel_svm import KernelModel

INPUTS = 6


def machine(kind: str, **model: Any) -> KernelModel:
    made = make_settings({"kind": kind, **model}, INPUTS).model
    assert isinstance(made, KernelModel)
    return made


@pytest.mark.parametrize("kind", ["svm-rbf", "svm-poly"])
def test_features_come_closer_to_the_kernel_the_more_they_are(kind: Any) -> None:
    rows = np.random.default_rng(0).normal(size=(40, 4)) * np.array([1, 2, 3, 4])
    spread = np.array([1.0, 2, 3, 4])
    gamma = 1 / 30  # of so wide inputs
    wanted = {
        "svm-rbf": rbf_kernel(rows, gamma=gamma),
        "svm-poly": polynomial_kernel(rows, degree=2, gamma=gamma, coef0=1),
    }[kind]
    errors = []
    for num in (10, 50, 300):
        model = machine(kind, num_features=num, degree=2)
        landmarks = model.first_landmarks(4, 0)
        features = model.features(landmarks, model.map_of(landmarks, spread), spread, rows)
        assert features.shape == (40, num)
        errors.append(np.abs(features @ features.T - wanted).mean())
    assert errors[2] < 0.01
    assert errors[2] < errors[0] / 10


def test_a_definite_kernel_matrix_gives_scikit_learns_nystroem() -> None:
    """Given the landmarks as the only cases."""
    model = machine("svm-sigmoid", num_features=10, gamma=0.02)
    landmarks, rows = model.first_landmarks(30, 0), np.random.default_rng(1).normal(size=(7, 30))
    theirs = Nystroem(kernel="sigmoid", gamma=0.02, coef0=0, n_components=10, random_state=0).fit(landmarks)
    ours = model.features(landmarks, model.map_of(landmarks, np.ones(30)), np.ones(30), rows)
    wanted = theirs.transform(rows)
    np.testing.assert_allclose(ours @ ours.T, wanted @ wanted.T, atol=1e-9)


def test_of_an_indefinite_kernel_matrix_the_definite_part_is_kept() -> None:
    model = machine("svm-sigmoid", num_features=40, gamma=1.0)
    landmarks = model.first_landmarks(3, 0)
    values, vectors = np.linalg.eigh(np.tanh(landmarks @ landmarks.T))
    assert values[0] < -0.1
    kept = np.where(values > 1e-3 * values[-1], values, 0.0)
    features = model.features(landmarks, model.map_of(landmarks, np.ones(3)), np.ones(3), landmarks)
    np.testing.assert_allclose(features @ features.T, (vectors * kept) @ vectors.T, atol=1e-9)


def test_no_landmark_depends_on_cases() -> None:
    settings = make_settings({"kind": "svm-sigmoid"}, INPUTS)
    landmarks = [play(settings, make_cases(seed, (30, 40), INPUTS), 3)["landmarks"] for seed in (0, 1)]
    assert np.array_equal(*landmarks)
