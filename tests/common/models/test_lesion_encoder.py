"""The model that looks at what a segmentation network's encoder has seen."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tests.deep import SHAPE, tiny_study
from torch import nn

from msfl_client.imaging.resampling import normalise
from msfl_common.config.study import StudyConfig
from msfl_common.errors import InputError
from msfl_common.models.deep_models import VisitClassifier, build_classifier
from msfl_common.models.deep_models.lesion_encoder import (
    LesionEncoder,
    _brain_zscore,
    _mean_within,
    load_segmentation,
    see_and_segment,
)
from msfl_common.models.model_folder import LESION_THRESHOLD
from msfl_common.models.network import build_network, get_weights
from msfl_common.networks.base import SegmentationNetwork
from msfl_common.networks.registry import DynUNet, UNet


def lesion_encoder(**changes: object) -> tuple[VisitClassifier, LesionEncoder]:
    network = build_classifier(tiny_study("lesion-encoder", **changes))
    assert isinstance(network.encoder, LesionEncoder)
    return network, network.encoder


@pytest.mark.parametrize("settings", [UNet(channels=(4, 8)), UNet(channels=(2, 4, 6, 8), residual_units=0)])
def test_the_encoder_is_part_of_the_very_segmentation_network(settings: UNet) -> None:
    _, encoder = lesion_encoder(network=settings)
    images = torch.randn(1, 2, 16, 24, 16)
    levels, logits = see_and_segment(encoder.unet, settings.encoder, images)
    assert torch.equal(logits, encoder.unet(images))
    assert [maps.shape[1] for maps in levels] == list(settings.channels)


@pytest.mark.parametrize("settings", [DynUNet(channels=(2, 4, 8)), DynUNet(channels=(2, 4, 8), dimensions=2)])
def test_the_encoder_can_be_of_another_network(settings: DynUNet) -> None:
    network, encoder = lesion_encoder(network=settings)
    found = encoder.eval()(torch.rand(2, 2, *SHAPE) * 100)
    assert found.shape == (2, 4 + 2)
    assert torch.isfinite(found).all()
    other = get_weights(build_network(tiny_study("lesion-encoder", network=settings, seed=8)))
    load_segmentation(network, other)
    assert all(np.array_equal(other[name], value) for name, value in get_weights(encoder.unet).items())


def test_a_network_that_does_not_show_its_encoder_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    tree = tiny_study("lesion-encoder").model_dump(mode="json")
    StudyConfig.model_validate(tree)
    monkeypatch.setattr(UNet, "encoder", SegmentationNetwork.encoder)
    with pytest.raises(ValidationError, match="unet does not show its; expected another"):
        StudyConfig.model_validate(tree)


def test_images_are_normalised_as_for_segmentation() -> None:
    rng = np.random.default_rng(0)
    image = np.where(rng.random((9, 8, 7)) < 0.7, rng.uniform(50, 60, (9, 8, 7)), 0).astype(np.float32)
    found = _brain_zscore(torch.from_numpy(np.stack([image, np.zeros_like(image)]))[None])[0].numpy()
    expected = normalise(image)
    middle = np.abs(expected) < 1  # the percentiles that `normalise` clips at touch the ends alone
    assert np.allclose(found[0][middle], expected[middle], atol=0.02)
    assert found[0][image == 0] == pytest.approx(found[0].min())
    assert not found[1].any()


def test_maps_are_averaged_within_a_mask() -> None:
    maps = torch.arange(8.0).reshape(1, 1, 2, 2, 2)
    mask = torch.zeros(1, 1, 4, 4, 4)
    mask[0, 0, 0, 0, 0] = 1  # an eighth of the first coarse voxel
    mask[0, 0, 2:, 2:, 2:] = 1  # all of the last
    assert _mean_within(maps, mask).item() == pytest.approx((0 / 8 + 7) / (1 / 8 + 1))
    assert _mean_within(maps, torch.zeros(1, 1, 4, 4, 4)).item() == 0


class Everywhere(nn.Module):
    """A decoder that gives every voxel one probability."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.log_odds = float(np.log(probability / (1 - probability)))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return torch.full((len(maps), 1, *(2 * edge for edge in maps.shape[2:])), self.log_odds)


def test_volumes_of_lesions_and_brain_are_features() -> None:
    _, encoder = lesion_encoder()
    images = torch.zeros(1, 2, *SHAPE)
    images[:, :, :, :8] = 100.0  # half of the field
    encoder.unet.model[2] = Everywhere(0.5)
    lesion, brain = encoder.eval()(images)[0, -2:].tolist()
    assert brain == pytest.approx(200 * 200 * 150 / 2 / 1e6)
    assert np.expm1(lesion) == pytest.approx(0.5 * brain * 1000)
    encoder.unet.model[2] = Everywhere(LESION_THRESHOLD - 0.001)
    assert encoder(images)[0, -2] == 0


def test_a_segmentation_model_is_taken_over_and_kept() -> None:
    network, encoder = lesion_encoder()
    other = get_weights(build_network(tiny_study("lesion-encoder", seed=8)))
    load_segmentation(network, other)
    assert all(np.array_equal(other[name], value) for name, value in get_weights(encoder.unet).items())
    assert not any(parameter.requires_grad for parameter in encoder.unet.parameters())
    wide = get_weights(build_network(tiny_study("lesion-encoder", network=UNet(channels=(4, 16)))))
    with pytest.raises(InputError, match="does not fit this study's network"):
        load_segmentation(network, wide)
