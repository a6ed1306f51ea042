"""Differential privacy: what the accountant says against others, what a step costs, and what noise costs a model."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Iterator
from math import exp
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from msfl_client.classification.feature_models.private_sums import private_class_sums
from msfl_client.classification.feature_models.sums import class_sums
from msfl_client.privacy.noise import Noise
from msfl_client.privacy.round import PrivateRounds, in_order
from msfl_client.segmentation.loop import train_round, validate
from msfl_client.segmentation.network_input import NetworkInput
from msfl_client.segmentation.patches import PatchDataset, PatchLoader
from msfl_client.segmentation.private_loop import PatientPatches, PrivateTraining
from msfl_client.trainer import identities_of
from msfl_client.training.site_strategy import Start
from msfl_common.config.base import validate as validated
from msfl_common.config.differential_privacy import DifferentialPrivacy
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import Augmentation, Rounds, StudyConfig, Training
from msfl_common.feature_models import first_state, predict_proba
from msfl_common.models.network import build_network, get_weights
from msfl_common.networks.registry import UNet
from msfl_common.privacy_accounting import Mechanism, epsilon_of, planned_epsilon
from msfl_server.aggregation.feature_models.combine import combine
from tests.benchmarks.figure import Figure

logging.getLogger("absl").setLevel(logging.ERROR)  # orders of the Renyi bound that do not converge
DELTA, CPU = 1e-5, torch.device("cpu")
INPUTS = ("age", "disease_duration", "edss", "relapses_prior_year", "fs_visual", "fs_brainstem", "fs_pyramidal")
EIGHT = (*INPUTS, "fs_cerebellar")


def measure() -> list[Figure]:
    """Every figure of differential privacy."""
    return [*_accounting(), _step(), *_sums(), *_segmentation()]


def _accounting() -> Iterator[Figure]:
    """Random schedules of one to three mechanisms, as several studies on the same patients are."""
    rng, off, below = np.random.default_rng(7001), [], 0
    for _ in range(20):
        released = [
            (
                Mechanism(float(np.exp(rng.uniform(-0.3, 1.8))), float(np.exp(rng.uniform(-3.9, -0.7)))),
                int(rng.integers(10, 1000)),
            )
            for _ in range(rng.integers(1, 4))
        ]
        own, fine, rdp = epsilon_of(released, DELTA), PLDAccountant(), RdpAccountant()
        for one, times in released:
            event = PoissonSampledDpEvent(one.sampling_rate, GaussianDpEvent(one.noise_multiplier))
            for accountant in (fine, rdp):
                accountant.compose(SelfComposedDpEvent(event, times))
        off.append(abs(own / fine.get_epsilon(DELTA) - 1))
        below += own <= rdp.get_epsilon(DELTA)
    how = "20 random schedules of one to three subsampled Gaussian mechanisms, 10 to 1000 times each"
    yield Figure("epsilon off dp-accounting's own", 100 * max(off), "%", 1.0, "at_most", "ten times finer grid", how)
    yield Figure("epsilon below the Renyi bound", below / 20, "", 1.0, "at_least", "its RDP accountant", how)
    exact_off = []
    for sigma, times in ((rng.uniform(0.5, 8), int(rng.integers(1, 60))) for _ in range(20)):
        exact = _gaussian_epsilon(sigma / np.sqrt(times))
        exact_off.append(abs(epsilon_of([(Mechanism(sigma), times)], DELTA) / exact - 1))
    how = "20 random numbers of full-batch releases, against the Gaussian mechanism's closed form (Balle and Wang 2018)"
    yield Figure("epsilon off the closed form", 100 * max(exact_off), "%", 1.0, "at_most", "", how)


def _gaussian_epsilon(sigma: float) -> float:
    """Of one release, at `DELTA`."""

    def delta(epsilon: float) -> float:
        half = 0.5 / sigma
        return float(norm.cdf(half - epsilon * sigma) - exp(epsilon) * norm.cdf(-half - epsilon * sigma))

    return float(brentq(lambda epsilon: delta(epsilon) - DELTA, 1e-9, 500))


def _study(
    private: DifferentialPrivacy | None, steps: int, rounds: int, batch_size: int, **network: Any
) -> StudyConfig:
    return StudyConfig(
        name="bench",
        network=UNet(**network),
        training=Training(
            steps_per_round=steps,
            batch_size=batch_size,
            patch_voxels=16 if network else 32,
            learning_rate=0.01,
            augmentation=Augmentation(affine=0, gamma=0, bias=0, noise=0, low_resolution=0),
        ),
        rounds=Rounds(num_rounds=rounds, quorum=1),
        differential_privacy=private,
    )


def _case(seed: int, edge: int) -> NetworkInput:
    """A head in which lesions are somewhat brighter than the rest, in the second contrast."""
    rng = np.random.default_rng(seed)
    image_CDHW = rng.normal(0, 1, (2, edge, edge, edge)).astype(np.float32)
    label_DHW = np.zeros((edge, edge, edge), np.uint8)
    for corner in rng.integers(1, edge - 6, (3, 3)):
        label_DHW[tuple(slice(low, low + 4) for low in corner)] = 1
    image_CDHW[1] += 1.5 * label_DHW
    return NetworkInput(image_CDHW, label_DHW, np.eye(4))


def _training(study: StudyConfig, cases: list[NetworkInput], state: Path) -> PrivateTraining:
    patients = [f"p{number:03}" for number in range(len(cases))]
    site = SiteConfig(name="bench", data=(state,), state=state)
    rounds = PrivateRounds(site, study, study.name, in_order(patients), CPU, identities_of(patients))
    return PrivateTraining(rounds, PatientPatches(PatchDataset(cases, study.training, 1), patients))


def _private_round(training: PrivateTraining, network: torch.nn.Module, number: int) -> None:
    weights = get_weights(network)
    training.train(network, Start(number, weights, weights, {}, {}), lambda *_: None, 1)


def _step() -> Figure:
    """Eight patches a step: of two patients, four each, against eight at once."""
    private = DifferentialPrivacy(noise_multiplier=1, sampling_rate=1)
    alone, plain = _study(private, 5, 9, 4), _study(None, 5, 9, 8)
    cases, ratios = [_case(seed, 40) for seed in range(2)], []
    one, other = build_network(alone), build_network(plain)
    loader = PatchLoader(PatchDataset(cases, plain.training, 1), CPU)
    with tempfile.TemporaryDirectory() as folder:
        training = _training(alone, cases, Path(folder))
        for number in range(1, 6):
            start = time.process_time()
            train_round(other, loader, plain, number, CPU, lambda *_: None)
            middle = time.process_time()
            _private_round(training, one, number)
            ratios.append((time.process_time() - middle) / (middle - start))
    return Figure(
        "private step", median(ratios), "x", 1.3, "at_most", "a plain step",
        "processor time of rounds of 5 steps on 8 patches of 32 voxels, median of 5; 2 patients of 4 patches each, "
        "noise on 1.2 million weights",
    )  # fmt: skip


def _sums() -> Iterator[Figure]:
    """AUROC of LDA on patients that nobody trained on, as noise grows."""
    for num_patients, num_sites in ((300, 1), (1000, 1), (1000, 4)):
        for epsilon in (1.0, 3.0, 8.0, None):
            sigma = None if epsilon is None else _noise_for(epsilon)
            scores = [_lda(num_patients, num_sites, sigma, seed) for seed in range(52_000, 52_030)]
            of = f"{num_patients} patients" + (f" at {num_sites} sites" if num_sites > 1 else "")
            spread = np.std(scores, ddof=1) / np.sqrt(len(scores))
            yield Figure(
                f"LDA, {of}, epsilon {'none' if epsilon is None else f'{epsilon:g}'}", float(np.mean(scores)), "AUROC",
                None, "at_least", "", f"8 inputs, mean of 30 fresh draws, standard error {spread:.3f}",
            )  # fmt: skip


def _noise_for(epsilon: float) -> float:
    return float(brentq(lambda sigma: epsilon_of([(Mechanism(sigma), 1)], DELTA) - epsilon, 0.3, 20, rtol=1e-3))


def _lda(num_patients: int, num_sites: int, sigma: float | None, seed: int) -> float:
    rng = np.random.default_rng(seed)
    study = validated(
        StudyConfig,
        {
            "name": "bench",
            "task": "classification",
            "classification": {"outcome": {"column": "label"}, "clinical": EIGHT, "model": {"kind": "lda"}},
            "differential_privacy": {"noise_multiplier": sigma or 1, "bounds": dict.fromkeys(EIGHT, (-2.5, 2.5))},
        },
        "bench",
    )
    settings, private = study.classification, study.differential_privacy
    assert settings is not None
    assert private is not None
    state, parts = first_state(settings, 0), {}
    for site in range(num_sites):
        inputs_NP, labels_N = _patients(rng, num_patients // num_sites)
        if sigma is None:
            part = class_sums(settings, inputs_NP, labels_N)
        else:
            part = private_class_sums(settings, private, inputs_NP, labels_N, Noise(os.urandom(32)))
        parts[f"site-{site}"] = (part, len(labels_N))
    inputs_NP, labels_N = _patients(rng, 4000)
    after = combine(settings, state, parts)
    return float(roc_auc_score(labels_N, predict_proba(settings, after, inputs_NP)[:, 1]))


def _patients(rng: np.random.Generator, number: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Eight correlated inputs in standard units, three in ten patients with the outcome."""
    labels_N = (rng.random(number) < 0.3).astype(np.int64)
    inputs_NP = rng.multivariate_normal(np.zeros(8), 0.8 * np.eye(8) + 0.2, number)
    return inputs_NP + labels_N[:, None] * np.array([0.5, 0.3, 0.4, 0.2, 0, 0.2, 0.3, -0.3]), labels_N


def _segmentation() -> Iterator[Figure]:
    """Dice of a small U-Net on easy lesions: one site of 60 patients, plain, clipped, and with noise."""
    training, validation = ([_case(seed, 24) for seed in range(*ends)] for ends in ((8000, 8060), (8100, 8110)))
    base = DifferentialPrivacy(noise_multiplier=0, sampling_rate=0.2)
    for name, sigma in (("plain", None), ("clipped only", 0.0), ("noise 0.6", 0.6), ("noise 2", 2.0)):
        private = None if sigma is None else base.model_copy(update={"noise_multiplier": sigma})
        study = _study(private, 15, 6, 24 if private is None else 2, channels=(8, 16))
        network = build_network(study)
        loader = PatchLoader(PatchDataset(training, study.training, 1), CPU)
        with tempfile.TemporaryDirectory() as folder:
            privately = _training(study, training, Path(folder)) if private is not None else None
            for number in range(1, 7):
                if privately is None:
                    train_round(network, loader, study, number, CPU, lambda *_: None)
                else:
                    _private_round(privately, network, number)
        rows = validate(network, validation, study, CPU, lambda *_: None)
        epsilon = planned_epsilon(study)
        told = "no epsilon" if epsilon is None else f"epsilon {epsilon:.3g}"
        yield Figure(
            f"segmentation, {name}", float(np.mean([row["dsc"] for row in rows])), "DSC", None, "at_least", "",
            f"{told}; 60 training patients with easy lesions, 90 steps of 24 patches, mean of 10 other patients",
        )  # fmt: skip
