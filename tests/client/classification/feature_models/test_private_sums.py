"""Sums with noise: what one patient adds is bounded, they look as sums of cases do, and are told once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.attacks.feature_sites import Site
from tests.feature_models import make_settings

from msfl_client.classification.feature_models.private_sums import (
    beyond_bounds,
    blocks_of,
    private_class_sums,
    reaches,
)
from msfl_client.privacy.noise import Noise
from msfl_client.privacy.spent import read_spent
from msfl_common.config.classification import Classification
from msfl_common.config.differential_privacy import DifferentialPrivacy
from msfl_common.dataset import Dataset
from msfl_common.feature_models import check_state, first_state
from msfl_common.system.seeds import derive_seed
from msfl_server.aggregation.feature_models.checks import check_contribution
from msfl_server.aggregation.feature_models.combine import combine

KINDS: list[tuple[str, dict[str, Any]]] = [
    ("lda", {}),
    ("least-squares", {"selection": "k-best", "num_selected": 2}),
    ("naive-bayes", {}),
    ("naive-bayes", {"reduction": "pca", "num_components": 2}),
]


def settings_of(kind: str, preparation: dict[str, Any]) -> Classification:
    return make_settings({"kind": kind}, 4, **preparation)


def private_of(settings: Classification, noise_multiplier: float = 1.4) -> DifferentialPrivacy:
    bounds = dict.fromkeys(settings.inputs, (-10.0, 30.0))
    return DifferentialPrivacy(noise_multiplier=noise_multiplier, bounds=bounds)


def cases(number: int, seed: int = 0) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    labels_N = (rng.random(number) < 0.3).astype(np.int64)
    return rng.normal(10, 5, (number, 4)) + 4 * labels_N[:, None], labels_N


@pytest.mark.parametrize(("kind", "preparation"), KINDS)
def test_a_patient_adds_to_no_block_more_than_its_reach(kind: str, preparation: dict[str, Any]) -> None:
    settings = settings_of(kind, preparation)
    scaled_NP, labels_N = np.random.default_rng(1).uniform(-1, 1, (20, 4)), np.arange(20) % 2
    without = blocks_of(settings, scaled_NP, labels_N)
    for row in (np.ones(4), -np.ones(4), np.array([1.0, 0, 0, 0]), np.zeros(4)):
        with_him = blocks_of(settings, np.vstack([scaled_NP, row]), np.append(labels_N, 1))
        for name, reach in reaches(settings).items():
            assert np.linalg.norm(with_him[name] - without[name]) <= reach * (1 + 1e-12)


@pytest.mark.parametrize("number", [4, 60])
@pytest.mark.parametrize(("kind", "preparation"), KINDS)
def test_noisy_sums_are_such_as_cases_could_have_and_make_a_model(
    kind: str, preparation: dict[str, Any], number: int
) -> None:
    settings = settings_of(kind, preparation)
    features_NP, labels_N = cases(number)
    labels_N[0], features_NP[1] = 1 - labels_N[0], 1e9  # far beyond the bounds
    state = first_state(settings, 0)
    for key in (b"1", b"2", b"3"):
        answer = private_class_sums(settings, private_of(settings, 4.0), features_NP, labels_N, Noise(key))
        check_contribution(settings, state, answer, number, 0.0)
        check_state(settings, combine(settings, state, {"site": (answer, number)}))


def test_with_many_patients_the_noise_is_small_and_bounds_cut() -> None:
    settings = settings_of("lda", {})
    features_NP, labels_N = cases(50_000)
    answer = private_class_sums(settings, private_of(settings), features_NP, labels_N, Noise(b"key"))
    means_KP = answer["sums"] / answer["counts"][:, None]
    assert np.abs(answer["counts"] - np.bincount(labels_N)).max() < 40
    assert np.abs(means_KP - [features_NP[labels_N == label].mean(axis=0) for label in (0, 1)]).max() < 0.5
    assert np.sqrt(np.diag(answer["scatter"][0]) / 50_000) == pytest.approx(np.full(4, 5.0), abs=0.6)


def test_a_sites_people_are_told_which_values_are_cut() -> None:
    settings = settings_of("lda", {})
    private, (features_NP, _) = private_of(settings), cases(20)
    within_NP = np.clip(features_NP, -10, 30)
    assert beyond_bounds(settings, private, within_NP) == ""
    within_NP[:3, 1], within_NP[4, 2] = 31, -11
    said = beyond_bounds(settings, private, within_NP)
    assert said.startswith("of 20 training cases, values beyond the study's bounds are cut")
    assert said.endswith(f"{settings.inputs[1]} of 3, {settings.inputs[2]} of 1")


def private_site(folder: Path, features_NP: Any, labels_N: Any, noise_multiplier: float = 1.4) -> Site:
    settings = settings_of("lda", {})
    patients = tuple(f"p{number}" for number in range(len(labels_N)))
    site = Site(settings, Dataset(settings.inputs, features_NP, labels_N, patients), folder)
    update = {"differential_privacy": private_of(settings, noise_multiplier)}
    site.study = site.learner._data.study = site.study.model_copy(update=update)
    return site


def test_a_site_tells_its_noisy_sums_once_and_spends_once(tmp_path: Path) -> None:
    features_NP, labels_N = cases(40)
    labels_N[:] = 0
    labels_N[:2] = 1  # a class of two patients is not left out: noise hides it
    start = first_state(settings_of("lda", {}), derive_seed(0, "weights"))
    site = private_site(tmp_path / "a", features_NP, labels_N)
    first, again = site.ask(start), private_site(tmp_path / "a", features_NP, labels_N).ask(start, 2)
    other = private_site(tmp_path / "b", features_NP, labels_N).ask(start)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.allclose(first["sums"], other["sums"])
    assert site.learner.num_train_patients == site.learner.num_behind(1) == 40
    (release,) = read_spent(tmp_path / "a" / "state").releases
    assert (release.noise_multiplier, release.sampling_rate, release.times) == (1.4, 1.0, 1)
