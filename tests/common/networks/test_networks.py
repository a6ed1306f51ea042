"""Every network, in both dimensions: what it says of itself is true, and its weights are all that there is of it."""

from __future__ import annotations

import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import Field, ValidationError
from tests.networks import BY_KIND, NAMES, SMALL, patches, study_of
from torch import nn

from msfl_common.config.study import StudyConfig, load_study
from msfl_common.errors import ConfigError
from msfl_common.models.deep_models.lesion_encoder import see_and_segment
from msfl_common.models.expected_weights import weights_like
from msfl_common.models.model_folder import Provenance, load_model, save_model
from msfl_common.models.network import build_network, get_weights, set_weights
from msfl_common.models.starting_weights import starting_weights
from msfl_common.models.weights import Weights
from msfl_common.networks.base import Level, SegmentationNetwork
from msfl_common.networks.registry import AttentionUNet, DynUNet, SegResNet, SwinUNETR, UNet

every_network = pytest.mark.parametrize("settings", SMALL, ids=NAMES)


def digest(weights: Weights) -> str:
    return sha256(b"".join(name.encode() + value.tobytes() for name, value in weights.items())).hexdigest()


def values_kept(network: nn.Module, image: torch.Tensor) -> int:
    """Values that the way back needs, beside the weights."""
    kept, own = {}, {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() // 4
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = network(image)  # alive until all are counted, so that no place is counted for two
    del logits
    return sum(size for place, size in kept.items() if place not in own)


@every_network
def test_it_takes_the_smallest_patch_and_says_truly_what_comes_of_it(settings: SegmentationNetwork) -> None:
    study = study_of(settings)
    network, image = build_network(study).eval(), torch.from_numpy(patches(study))
    with torch.no_grad():
        logits = network(image)
        levels, again = see_and_segment(network, settings.encoder, image)
    assert logits.shape == (1, 1, *image.shape[2:])
    assert float(logits.sigmoid().mean()) < 0.1  # it starts where lesions are rare
    assert torch.equal(logits, again)
    assert [maps.shape[1] for maps in levels] == [level.maps for level in settings.levels]
    edge, plane = image.shape[2], settings.dimensions == 2
    for maps, level in zip(levels, settings.levels, strict=True):
        assert maps.shape[2:4] == (edge // level.shrinks,) * 2
        assert maps.shape[4] == (edge if plane else edge // level.shrinks)
    assert settings.least_values(edge) <= values_kept(network.train(), image)


@every_network
def test_its_weights_are_all_of_it(settings: SegmentationNetwork, tmp_path: Path) -> None:
    study, other = study_of(settings), study_of(settings).model_copy(update={"seed": 1})
    first, expected = starting_weights(study), weights_like(study)
    assert [(name, value.shape) for name, value in first.items()] == [
        (name, value.shape) for name, value in expected.items()
    ]
    assert digest(first) != digest(starting_weights(other))
    save_model(tmp_path / "model", study, first, Provenance(rounds_completed=1, sites={}))
    card, stored = load_model(tmp_path / "model")
    assert card.study == study
    assert card.study.network == settings
    network, image = build_network(other), torch.from_numpy(patches(study))
    set_weights(network, stored)
    with torch.no_grad():
        assert torch.equal(network.eval()(image), build_network(study).eval()(image))


@pytest.mark.slow
def test_another_process_expects_the_same_and_starts_from_the_same_bits() -> None:
    """Without SymPy, which PyTorch loads for seconds where networks draw first values without memory."""
    code = (
        "import sys\n"
        "from tests.networks import SMALL, study_of\n"
        "from msfl_common.models.expected_weights import weights_like\n"
        "for network in SMALL: weights_like(study_of(network))\n"
        "print('sympy' in sys.modules)\n"
        "from tests.common.networks.test_networks import digest\n"
        "from msfl_common.models.starting_weights import starting_weights\n"
        "for network in SMALL: print(digest(starting_weights(study_of(network))))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3]
    )
    slow, *digests = done.stdout.split()
    assert slow == "False"
    assert digests == [digest(starting_weights(study_of(network))) for network in SMALL]
    assert len(set(digests)) == len(SMALL)


@every_network
@pytest.mark.parametrize("less", [1, None])
def test_a_patch_that_does_not_fit_is_refused_with_one_that_does(
    settings: SegmentationNetwork, less: int | None, tmp_path: Path
) -> None:
    edge = 5 * settings.divisor - less if less else settings.smallest_patch - settings.divisor
    if edge < 8:
        edge = 9
    text = settings.model_dump_json()
    (tmp_path / "study.yaml").write_text(f"name: p\nnetwork: {text}\ntraining: {{patch_voxels: {edge}}}\n")
    with pytest.raises(ConfigError) as caught:
        load_study(tmp_path / "study.yaml")
    (fault,) = caught.value.faults
    start = f"training.patch_voxels: {edge} must be a multiple of {settings.divisor} and at least"
    assert fault.startswith(start)
    assert settings.kind in fault
    for word in fault.rpartition("write ")[2].split(" or "):
        settings.check_patch(int(word))


def test_a_network_of_two_dimensions_sees_no_neighbouring_slice() -> None:
    for settings in SMALL:
        study = study_of(settings)
        image = torch.from_numpy(patches(study, 2))
        changed = image.clone()
        changed[0, :, :, :, 3] += 1.0
        network = build_network(study).eval()
        with torch.no_grad():
            moved = (network(image) != network(changed)).flatten(1, 3).any(dim=1)
        seen = {(int(patch), int(level)) for patch, level in moved.nonzero()}
        assert seen == {(0, 3)} if settings.dimensions == 2 else len(seen) > 1, settings


def test_deep_supervision_adds_logits_in_training_alone() -> None:
    """Of all levels of the way up but the lowest, each no finer than its own voxels; the finest are as without it."""
    study = study_of(DynUNet(channels=(2, 4, 4, 4, 4), deep_supervision=True))
    network, image = build_network(study), torch.from_numpy(patches(study))
    with torch.no_grad():
        in_training, after = network(image), network.eval()(image)
    assert in_training.shape == (1, 3, *image.shape[2:])
    assert network.heads[0].numel() == 0  # nothing of a batch stays
    assert torch.equal(in_training[:, :1], after)
    assert float(in_training.sigmoid().mean()) < 0.1
    for level in (1, 2):
        coarse = in_training[:, level : level + 1, :: 2**level, :: 2**level, :: 2**level]
        assert torch.equal(torch.nn.functional.interpolate(coarse, image.shape[2:]), in_training[:, level : level + 1])


def test_networks_normalise_within_a_patch() -> None:
    """Two patches together give what each gives alone: nothing is taken over a batch."""
    for settings in SMALL:
        study = study_of(settings)
        image, network = torch.from_numpy(patches(study, 2)), build_network(study).train()
        with torch.no_grad():
            apart = torch.cat([network(image[:1]), network(image[1:])])
            assert torch.allclose(network(image), apart, atol=1e-4), settings


class Odd(SegmentationNetwork):
    """A network that `make` makes of `layers`."""

    layers: Any = Field(description="modules")
    kind: str = Field("odd", description="which")

    @property
    def levels(self) -> tuple[Level, ...]:
        return (Level(1, 1),)

    def make(self, num_contrasts: int, num_regions: int) -> nn.Module:
        return nn.Sequential(*self.layers)


@pytest.mark.parametrize(
    ("layers", "why"),
    [
        ([nn.BatchNorm3d(1), nn.Conv3d(1, 1, 1)], "0.num_batches_tracked is no weight"),
        ([nn.BatchNorm3d(1, track_running_stats=False), nn.Conv3d(1, 1, 1)], "normalises by batch"),
        ([nn.Conv3d(1, 1, 1), nn.Dropout(0.1), nn.Conv3d(1, 1, 1)], "drops maps at random"),
        ([nn.LazyConv3d(1, 1)], r"0\.weight: expected float32, of a shape .*found none before"),
        ([nn.Conv3d(1, 1, 1).double()], r"0\.weight: expected float32, .*found torch\.float64"),
        ([nn.Linear(1, 1)], "has no convolution"),
        ([shared := nn.Conv3d(1, 1, 1), nn.Sequential(shared)], "one that has another name"),
        ([nn.Conv3d(1, 2, 1)], "expected one map with a bias"),
        ([nn.Conv3d(1, 1, 1, bias=False)], "expected one map with a bias"),
    ],
)
def test_a_network_that_cannot_be_shared_is_refused(layers: list[nn.Module], why: str) -> None:
    with pytest.raises(TypeError, match=why):
        Odd(layers=layers).build(1)


def test_the_last_layer_of_a_plain_unet_is_transposed_and_starts_rare() -> None:
    network: Any = build_network(study_of(UNet(channels=(2, 4), residual_units=0)))
    assert isinstance(network.model[2].conv, nn.ConvTranspose3d)
    assert float(network.model[2].conv.bias.detach()) == -4.0


@pytest.mark.parametrize(
    ("network", "line"),
    [
        ("{kind: resnet}", "network.kind: found 'resnet'; did you mean segresnet? Expected attention-unet"),
        ("{channels: [4, 8]}", "network.kind: required, but not there"),
        ("{kind: unet, channels: [4]}", "channels"),
        ("{kind: unet, dimensions: 4}", "dimensions: found 4"),
        ("{kind: unet, window: 7}", "window: unknown key"),
        ("{kind: dynunet, channels: [4, 8]}", "channels"),
        ("{kind: segresnet, maps: 12}", "maps: found 12; expected a multiple of 8"),
        ("{kind: segresnet, blocks: [1, 1, 99]}", "blocks, entry 3: found 99"),
        ("{kind: attention-unet, channels: [1, 8, 8]}", "channels, entry 1: found 1"),
        ("{kind: swin-unetr, maps: 16}", "maps: found 16; expected a multiple of 12"),
        ("{kind: swin-unetr, window: 64}", "window: found 64"),
        ("{kind: swin-unetr}", "training.patch_voxels: 48 must be a multiple of 32"),
    ],
)
def test_a_setting_out_of_range_is_refused_in_one_line(network: str, line: str, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(f"name: p\nnetwork: {network}\n")
    with pytest.raises(ConfigError) as caught:
        load_study(tmp_path / "study.yaml")
    (fault,) = caught.value.faults
    assert line in fault
    assert "network" in fault


def test_the_largest_networks_are_refused_before_they_are_built() -> None:
    for settings in (SwinUNETR(maps=96, blocks=(12, 12, 12, 12)), AttentionUNet(channels=(1024,) * 5)):
        with pytest.raises(ConfigError, match="network: expected at most 100,000,000 parameters"):
            weights_like(study_of(settings))


@pytest.mark.slow
def test_settings_are_read_without_a_deep_learning_framework() -> None:
    code = "import sys, msfl_common.config.study; print(sorted({'torch', 'monai', 'einops'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_kind_has_a_small_one_here() -> None:
    assert {network.kind for network in SMALL} == set(BY_KIND)
    with pytest.raises(ValidationError):
        StudyConfig.model_validate({"name": "p", "network": {"kind": "none"}})


def test_weights_are_float32_and_move_as_they_are() -> None:
    for settings in SMALL:
        weights = starting_weights(study_of(settings))
        assert {value.dtype for value in weights.values()} == {np.dtype(np.float32)}
        network = build_network(study_of(settings))
        set_weights(network, weights)
        assert digest(get_weights(network)) == digest(weights)


@pytest.mark.parametrize(
    "settings",
    [SegResNet(maps=8, blocks=(16, 16)), SwinUNETR(maps=12, blocks=(12, 12, 12, 12), window=2)],
    ids=["a", "b"],
)
def test_every_block_counts_for_the_memory_that_a_study_asks_for(settings: SegmentationNetwork) -> None:
    """Or a study of many blocks passes for one of few, and takes the site's memory when it trains."""
    needed = values_kept(build_network(study_of(settings)), torch.zeros(1, 2, 32, 32, 32))
    assert needed / 3 < settings.least_values(32) <= needed / 2  # a batch may be trained in halves
