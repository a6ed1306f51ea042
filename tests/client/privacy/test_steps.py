"""Private steps: no patient counts for more than the bound, and the noise is the site's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from msfl_client.privacy.noise import Noise, noise_of
from msfl_client.privacy.round import PrivateRounds, expected_behind, in_order
from msfl_client.privacy.steps import PrivatePlan, clip_and_add, drawn_patients, run_private_steps
from msfl_client.segmentation.network_input import NetworkInput
from msfl_client.segmentation.patches import PatchDataset
from msfl_client.segmentation.private_loop import PatientPatches, PrivateTraining
from msfl_client.trainer import identities_of
from msfl_client.training.site_strategy import Start
from msfl_client.training.steps import Piece
from msfl_common.config.differential_privacy import DifferentialPrivacy
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import Rounds, StudyConfig, Training
from msfl_common.models.network import build_network, get_weights, set_weights
from msfl_common.networks.registry import UNet

CPU = torch.device("cpu")
EVERYONE = DifferentialPrivacy(noise_multiplier=0, sampling_rate=1, max_gradient_norm=0.5)


def gradient_of(rows: list[torch.Tensor], private: DifferentialPrivacy) -> torch.Tensor:
    """The step that one round of plain gradient descent takes, times the patients expected."""
    weight = torch.zeros(3, requires_grad=True)
    plan = PrivatePlan(
        parameters=[weight],
        device=CPU,
        optimizer=torch.optim.SGD([weight], lr=1.0),
        num_steps=1,
        rate=lambda _: 1.0,
        private=private,
        num_patients=len(rows),
        noise=Noise(b"key"),
    )
    passes = ((Piece(lambda row=row: weight * row, torch.sum),) for row in rows)
    run_private_steps(plan, iter(passes), 1, lambda *_: None)
    return -weight.detach() * len(rows)


@pytest.mark.parametrize("changed", [torch.zeros(3), torch.full((3,), 1e20), torch.full((3,), torch.nan)])
def test_a_patient_moves_the_sum_by_the_bound_at_most_whatever_his_data(changed: torch.Tensor) -> None:
    others = [torch.tensor([0.1, 0.0, 0.2]), torch.tensor([3.0, -4.0, 0.0])]
    without, with_him = (gradient_of([*others, one], EVERYONE) for one in (torch.zeros(3), changed))
    assert (without - with_him).norm() <= EVERYONE.max_gradient_norm


def test_a_short_gradient_stays_and_a_long_one_is_cut_over_all_parameters_together() -> None:
    sums = [torch.zeros(2), torch.zeros(1)]
    clip_and_add([torch.tensor([0.3, 0.0]), torch.tensor([0.4])], 1.0, sums)
    assert torch.allclose(torch.cat(sums), torch.tensor([0.3, 0.0, 0.4]))
    clip_and_add([torch.tensor([0.0, 30.0]), torch.tensor([40.0])], 1.0, sums)
    assert torch.allclose(torch.cat(sums), torch.tensor([0.3, 0.6, 1.2]), atol=1e-5)


def test_an_empty_draw_is_a_step_of_noise_alone() -> None:
    private = DifferentialPrivacy(noise_multiplier=2, sampling_rate=1e-9, max_gradient_norm=0.5)
    found = gradient_of([torch.ones(3)], private) * 1e-9
    assert torch.allclose(found, 2 * 0.5 * Noise(b"key").normals("gradients", 1, 3, CPU), rtol=1e-5)


def test_each_patient_is_drawn_alone_with_the_sampling_rate() -> None:
    private = DifferentialPrivacy(noise_multiplier=1, sampling_rate=0.2)
    drawn = np.zeros((2000, 10))
    for step, row in enumerate(drawn, start=1):
        row[drawn_patients(Noise(b"key"), private, 10, step)] = 1
    assert np.abs(drawn.mean(axis=0) - 0.2).max() < 0.04  # 4.5 standard errors
    sizes = drawn.sum(axis=1)
    assert sizes.min() == 0
    assert abs(sizes.var() - 10 * 0.2 * 0.8) < 0.25  # Poisson sampling's; 0 of batches of one size
    off_diagonal = np.corrcoef(drawn.T)[~np.eye(10, dtype=bool)]
    assert np.abs(off_diagonal).max() < 0.1


def test_the_noise_is_normal_of_its_own_key_use_and_step(tmp_path: Path) -> None:
    noise = noise_of(tmp_path / "a", b"round 1")
    normals = noise.normals("gradients", 1, 20001, CPU).numpy()
    assert normals.dtype == np.float32
    assert stats.kstest(normals, "norm").pvalue > 0.001
    again = noise_of(tmp_path / "a", b"round 1").normals("gradients", 1, 20001, CPU).numpy()
    assert np.array_equal(again, normals)
    others = [
        noise.normals("gradients", 2, 20001, CPU),
        noise.normals("patients", 1, 20001, CPU),
        noise_of(tmp_path / "a", b"round 2").normals("gradients", 1, 20001, CPU),
        noise_of(tmp_path / "b", b"round 1").normals("gradients", 1, 20001, CPU),
    ]
    assert all(abs(np.corrcoef(normals, other.numpy())[0, 1]) < 0.03 for other in others)
    secret = tmp_path / "a" / "privacy" / "secret"
    assert len(secret.read_bytes()) == 32
    assert secret.stat().st_mode & 0o777 == 0o600
    assert secret.read_bytes() != (tmp_path / "b" / "privacy" / "secret").read_bytes()


STUDY = StudyConfig(
    name="small",
    network=UNet(channels=(4, 8)),
    training=Training(steps_per_round=2, batch_size=2, patch_voxels=16),
    rounds=Rounds(num_rounds=2, quorum=1),
    differential_privacy=DifferentialPrivacy(noise_multiplier=1, sampling_rate=0.5),
)
PATIENTS = ("p2", "p1", "p1", "p3")


def case(seed: int) -> NetworkInput:
    rng = np.random.default_rng(seed)
    image = rng.normal(0, 0.3, (2, 16, 16, 16)).astype(np.float32)
    return NetworkInput(image, (image[1] > 0.5).astype(np.uint8), np.eye(4))


def trained(state: Path, study: StudyConfig = STUDY, number: int = 1, shift: float = 0.0) -> dict[str, Any]:
    site = SiteConfig(name="a", data=(Path("bids"),), state=state)
    patches = PatchDataset([case(seed) for seed in range(4)], study.training, 7)
    rounds = PrivateRounds(site, study, study.name, in_order(PATIENTS), CPU, identities_of(PATIENTS))
    network = build_network(study)
    weights = {name: value + np.float32(shift) for name, value in get_weights(network).items()}
    set_weights(network, weights)
    training = PrivateTraining(rounds, PatientPatches(patches, PATIENTS))
    training.train(network, Start(number, weights, weights, {}, {}), lambda *_: None, 1)
    return get_weights(network)


def test_a_round_that_is_trained_again_gives_the_same_bytes_and_another_site_other_ones(tmp_path: Path) -> None:
    first, again, other = (trained(tmp_path / name) for name in ("a", "a", "b"))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not any(np.array_equal(first[name], other[name]) for name in first)


def test_another_start_of_the_same_round_has_other_noise(tmp_path: Path) -> None:
    """Else the difference of the two answers would be the patients' own."""
    far = DifferentialPrivacy(noise_multiplier=1000, sampling_rate=0.5)  # nothing but noise is left
    study = STUDY.model_copy(update={"differential_privacy": far})
    one, two = trained(tmp_path, study), trained(tmp_path, study, shift=1e-6)
    moved = np.concatenate([(one[name] - two[name]).ravel() for name in one])
    assert np.abs(moved).mean() > 1e-4


def test_patients_behind_a_round_are_those_expected_whoever_was_drawn() -> None:
    assert expected_behind(STUDY, 40) == 30  # of two steps with 1/2
    assert in_order(PATIENTS) == ("p1", "p2", "p3")
