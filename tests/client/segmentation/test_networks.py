"""Every network through a round of training, windows and a federation's checks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.client.segmentation.test_loop import bright_lesions
from tests.networks import NAMES, SMALL, study_of

from msfl_client.connection.message_limits import bounds_of
from msfl_client.disclosure.request_size import least_bytes
from msfl_client.segmentation.loop import predict_probability, train_round
from msfl_client.segmentation.patches import PatchDataset, PatchLoader
from msfl_common.config.study import Augmentation, Training
from msfl_common.models.network import build_network, get_weights
from msfl_common.models.weights import check_weights
from msfl_common.networks.base import SegmentationNetwork
from msfl_common.networks.registry import DynUNet, SwinUNETR, UNet

CPU = torch.device("cpu")
PLAIN = Augmentation(flip=0, affine=0, gamma=0, bias=0, noise=0, low_resolution=0)


@pytest.mark.parametrize("settings", SMALL, ids=NAMES)
def test_a_round_moves_every_weight_and_keeps_to_what_is_expected(settings: SegmentationNetwork) -> None:
    study = study_of(settings, steps_per_round=1, batch_size=1, augmentation=PLAIN, learning_rate=0.01)
    network, case = build_network(study), bright_lesions(0)
    first = get_weights(network)
    loader = PatchLoader(PatchDataset([case], study.training, 1), CPU)
    loss = train_round(network, loader, study, 1, CPU, lambda *_: None)
    assert np.isfinite(loss)
    trained = get_weights(network)
    check_weights(trained, first)
    still = [name for name in first if np.array_equal(first[name], trained[name]) and first[name].any()]
    assert still == []  # each is part of what is trained
    assert bounds_of(first).num_bytes > 4 * sum(value.size for value in first.values())


def test_what_a_step_takes_is_known_of_each_kind() -> None:
    """From settings alone: more of a network at the full resolution, and of one that looks about in large windows."""
    training = Training(patch_voxels=96, batch_size=4)
    base = study_of(UNet()).model_copy(update={"training": training})

    def gigabytes(network: SegmentationNetwork) -> float:
        return least_bytes(base.model_copy(update={"network": network})) / 1e9

    assert gigabytes(UNet()) < 1 < gigabytes(DynUNet())
    assert gigabytes(SwinUNETR(window=2)) < gigabytes(SwinUNETR(window=8)) / 2
    assert gigabytes(DynUNet(channels=(256, 256, 256))) > 8


@pytest.mark.parametrize("settings", [one for one in SMALL if one.kind in ("unet", "dynunet")], ids=str)
def test_windows_cover_a_head_that_is_no_multiple_of_them(settings: SegmentationNetwork) -> None:
    study = study_of(settings)
    network = build_network(study)
    head = np.random.default_rng(0).normal(size=(2, 14, 12, 9)).astype(np.float32)
    probability = predict_probability(network, head, study, CPU)
    assert probability.shape == head.shape[1:]
