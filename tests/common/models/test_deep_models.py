"""The deep models part by part, against their description and arithmetic done by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tests.deep import KINDS, SHAPE, full_study, tiny_study
from torch import nn

from msfl_common.errors import InputError
from msfl_common.models.deep_models import build_classifier
from msfl_common.models.deep_models.clinical_inputs import RANGES, scale_clinical
from msfl_common.models.deep_models.lesion_encoder import (
    segmentation_origin,
)
from msfl_common.models.deep_models.pretrained_resnet2d import PretrainedResNet2D, backbone_origin, load_backbone
from msfl_common.models.deep_models.resnet3d import ResidualBlock3D, ResNet3D
from msfl_common.models.deep_models.resnext3d import ResNeXt3D, ResNeXtBlock3D
from msfl_common.models.network import get_weights, set_weights

PARAMETERS = {  # T1w alone; T1w and FLAIR
    "resnet3d": (33_243_586, 33_265_666),
    "pretrained-resnet2d": (11_287_401, 11_314_529),
    "resnext": (2_590_914, 2_612_994),
    "lesion-encoder": (1_245_214, 1_246_206),
}


def visits(seed: int, *lengths: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sequences of these lengths, padded to the longest: images, clinical values, marks."""
    rng = np.random.default_rng(seed)
    longest = max(lengths)
    images = torch.tensor(rng.uniform(1, 255, (len(lengths), longest, 2, *SHAPE)), dtype=torch.float32)
    clinical = torch.tensor(rng.uniform(0, 1, (len(lengths), longest, 2)), dtype=torch.float32)
    present = torch.tensor([[visit < length for visit in range(longest)] for length in lengths])
    return images, clinical, present


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_at_full_size_are_those_of_the_table(kind: str) -> None:
    found = tuple(
        sum(parameter.numel() for parameter in build_classifier(full_study(kind, *contrasts)).parameters())
        for contrasts in (("T1w",), ("T1w", "FLAIR"))
    )
    assert found == PARAMETERS[kind]
    import msfl_common.models.deep_models as package

    assert package.__doc__ is not None
    row = next(line for line in package.__doc__.splitlines() if line.startswith(f"| {kind} "))
    assert [cell.strip().replace(",", "") for cell in row.split("|")[2:4]] == [str(count) for count in found]


@pytest.mark.parametrize("kind", KINDS)
def test_padding_and_missing_visits_change_nothing(kind: str) -> None:
    images, clinical, present = visits(0, 3, 1)
    images[1, 1:], clinical[1, 1:] = torch.nan, torch.nan
    network = build_classifier(tiny_study(kind))
    for mode in (True, False):  # in training, padding must not reach a batch's statistics either
        network.train(mode)
        whole = network(images, clinical, present)
        assert whole.isfinite().all()
        garbage = torch.where(present[:, :, None, None, None, None], images, 7.0)
        wider = nn.functional.pad(garbage, (0,) * 8 + (0, 2), value=9.0)
        padded = network(wider, nn.functional.pad(clinical, (0, 0, 0, 2)), nn.functional.pad(present, (0, 2)))
        assert torch.equal(padded, whole)
    gap = network(images[:1], clinical[:1], torch.tensor([[True, False, True]]))
    without = network(images[:1, [0, 2]], clinical[:1, [0, 2]], torch.tensor([[True, True]]))
    assert torch.equal(gap, without)
    assert not torch.allclose(gap, whole[:1])


def test_the_last_state_of_an_elman_network_is_read() -> None:
    network = build_classifier(tiny_study("resnet3d")).eval()
    images, clinical, _ = visits(1, 3)
    images[0, 1] = 0  # nothing was scanned: features 0
    images[0, 2, 1] = 0  # no FLAIR
    features = torch.zeros(3, network.num_features)
    with torch.no_grad():
        features[[0, 2]] = network.encoder(images[0, [0, 2]])
    scanned = np.array([[1, 1], [0, 0], [1, 0]])
    rnn = {name: value.detach().double().numpy() for name, value in network.recurrent.named_parameters()}
    state = np.zeros(8)
    for visit in range(3):
        seen = np.concatenate([features[visit].double().numpy(), scanned[visit], clinical[0, visit].double().numpy()])
        state = np.tanh(
            rnn["weight_ih_l0"] @ seen + rnn["bias_ih_l0"] + rnn["weight_hh_l0"] @ state + rnn["bias_hh_l0"]
        )
    weight, bias = (value.detach().double().numpy() for value in network.output.parameters())
    found = network(images, clinical, torch.ones(1, 3, dtype=torch.bool))[0].detach().numpy()
    assert np.allclose(found, weight @ state + bias, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_visits_without_any_image_are_judged_by_their_values(kind: str) -> None:
    network = build_classifier(tiny_study(kind)).train()
    images, clinical, present = visits(2, 2)
    nothing = torch.zeros_like(images)
    before = get_weights(network)
    first = network(nothing, clinical, present)
    assert first.isfinite().all()
    assert not torch.equal(first, network(nothing, clinical + 1, present))
    assert all(np.array_equal(before[name], value) for name, value in get_weights(network).items())  # no statistics


@pytest.mark.parametrize("kind", KINDS)
def test_one_small_volume_alone_can_be_trained_on(kind: str) -> None:
    network = build_classifier(tiny_study(kind)).train()
    images, clinical, present = visits(3, 1)
    loss = network(images, clinical, present).square().sum()
    loss.backward()
    assert loss.isfinite()


@pytest.mark.parametrize("kind", KINDS)
def test_first_weights_depend_on_the_seed_alone(kind: str) -> None:
    torch.manual_seed(1)
    first = get_weights(build_classifier(tiny_study(kind)))
    torch.manual_seed(2)
    state = torch.random.get_rng_state()
    second = get_weights(build_classifier(tiny_study(kind)))
    assert torch.equal(torch.random.get_rng_state(), state)
    other = get_weights(build_classifier(tiny_study(kind, seed=1)))
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert any(not np.array_equal(first[name], other[name]) for name in first)


def test_sites_with_batch_statistics_are_averaged() -> None:
    study = tiny_study("resnet3d")
    sites = []
    for seed, steps in ((0, 1), (1, 3)):
        network = build_classifier(study).train()
        for _ in range(steps):
            network(*visits(seed, 2, 1))
        sites.append(get_weights(network))
    average = {name: (value + sites[1][name]) / 2 for name, value in sites[0].items()}
    network = build_classifier(study)
    set_weights(network, average)
    counter = network.encoder.get_buffer("1.num_batches_tracked")
    assert counter.dtype == torch.int64
    assert counter.item() == 2
    mean = network.encoder.get_buffer("1.running_mean").numpy()
    assert np.array_equal(mean, (sites[0]["encoder.1.running_mean"] + sites[1]["encoder.1.running_mean"]) / 2)
    assert not np.array_equal(mean, sites[0]["encoder.1.running_mean"])
    assert network.eval()(*visits(2, 2)).isfinite().all()


def test_resnet3d_halves_pixels_and_keeps_slices() -> None:
    encoder = ResNet3D(1, 4)
    maps = nn.Sequential(*list(encoder)[:-2])(torch.rand(1, 1, 9, 64, 64))
    assert maps.shape == (1, 32, 9, 2, 2)
    stem = encoder[0]
    assert isinstance(stem, nn.Conv3d)
    assert stem.kernel_size == (7, 7, 7)
    assert sum(isinstance(module, ResidualBlock3D) for module in encoder.modules()) == 8


def test_a_residual_block_adds_its_input_or_a_projection() -> None:
    maps = torch.rand(2, 3, 4, 6, 6)
    same, other, strided = ResidualBlock3D(3, 3, 1), ResidualBlock3D(3, 5, 1), ResidualBlock3D(3, 3, 2)
    for block in (same, other, strided):
        nn.init.zeros_(block.main[-1].weight)  # silences the main branch
    assert torch.equal(same(maps), maps)  # positive maps pass the last ReLU
    for block, shape in ((other, (2, 5, 4, 6, 6)), (strided, (2, 3, 4, 3, 3))):
        assert isinstance(block.skip, nn.Sequential)
        assert torch.equal(block(maps), torch.relu(block.skip(maps)))
        assert block(maps).shape == shape


def torchvision_resnet18(width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of torchvision's resnet18, whose width is 64."""

    def norm(name: str, maps: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield from ((f"{name}.{part}", (maps,)) for part in ("weight", "bias", "running_mean", "running_var"))

    yield "conv1.weight", (width, 3, 7, 7)
    yield from norm("bn1", width)
    for level in range(1, 5):
        maps = width * 2 ** (level - 1)
        before = width if level == 1 else maps // 2
        for block, num_in in ((0, before), (1, maps)):
            name = f"layer{level}.{block}"
            yield f"{name}.conv1.weight", (maps, num_in, 3, 3)
            yield from norm(f"{name}.bn1", maps)
            yield f"{name}.conv2.weight", (maps, maps, 3, 3)
            yield from norm(f"{name}.bn2", maps)
            if num_in != maps:
                yield f"{name}.downsample.0.weight", (maps, num_in, 1, 1)
                yield from norm(f"{name}.downsample.1", maps)
    yield "fc.weight", (1000, width * 8)
    yield "fc.bias", (1000,)


def test_the_backbone_is_a_resnet18() -> None:
    backbone = PretrainedResNet2D(1, 50, 64).backbone
    assert sum(parameter.numel() for parameter in backbone.parameters()) == 11_689_512 - 513_000  # less the classifier
    found = {n: tuple(v.shape) for n, v in backbone.state_dict().items() if not n.endswith("num_batches_tracked")}
    assert found == {name: shape for name, shape in torchvision_resnet18(64) if not name.startswith("fc.")}


@pytest.mark.parametrize("with_counters", [False, True])
def test_pretrained_weights_are_loaded(tmp_path: Path, with_counters: bool) -> None:
    generator = torch.Generator().manual_seed(5)
    weights = {name: torch.rand(shape, generator=generator) for name, shape in torchvision_resnet18(4)}
    if with_counters:
        norms = [name for name in weights if name.endswith("running_mean")]
        weights |= {name.replace("running_mean", "num_batches_tracked"): torch.tensor(7) for name in norms}
    save_file(weights, tmp_path / "resnet18.safetensors")
    network = build_classifier(tiny_study("pretrained-resnet2d"))
    before = get_weights(network)
    load_backbone(network, tmp_path / "resnet18.safetensors")
    after = get_weights(network)
    for name, value in weights.items():
        if not name.startswith("fc."):
            assert np.array_equal(after[f"encoder.backbone.{name}"], value.numpy())
    others = [name for name in after if not name.startswith("encoder.backbone.")]
    assert len(others) > 8
    assert all(np.array_equal(before[name], after[name]) for name in others)


def test_weights_that_do_not_fit_are_refused_in_one_line(tmp_path: Path) -> None:
    network = build_classifier(tiny_study("pretrained-resnet2d"))
    before = get_weights(network)
    fitting = {name: torch.rand(shape) for name, shape in torchvision_resnet18(4)}
    wide = {name: torch.rand(shape) for name, shape in torchvision_resnet18(8)}
    lacking = {name: value for name, value in fitting.items() if name != "layer3.0.conv1.weight"}
    for number, (weights, words) in enumerate(
        [
            (wide, r"expected \[\d.*pretrained weights are of width 64"),
            (lacking, r"other arrays: layer3\.0\.conv1\.weight \(1 in all\)"),
            (fitting | {"layer5.0.conv1.weight": torch.rand(2)}, r"layer5\.0\.conv1\.weight"),
        ]
    ):
        file = tmp_path / f"{number}.safetensors"
        save_file(weights, file)
        with pytest.raises(InputError, match=words) as caught:
            load_backbone(network, file)
        assert "\n" not in str(caught.value)
    (tmp_path / "resnet18.pth").write_bytes(b"\x80\x04 a pickle, which is never read")
    for name in ("resnet18.pth", "missing.safetensors"):
        with pytest.raises(InputError, match="expected a safetensors file"):
            load_backbone(network, tmp_path / name)
    assert all(np.array_equal(before[name], value) for name, value in get_weights(network).items())


def test_it_is_said_where_weights_come_from() -> None:
    assert "trained from scratch" in backbone_origin()
    assert "random" in segmentation_origin()


def test_resnext_has_no_batch_statistics_and_starts_as_the_identity() -> None:
    network = build_classifier(full_study("resnext", "T1w"))
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())
    assert not any(isinstance(module, nn.ReLU | nn.Dropout) for module in network.modules())
    assert sum(isinstance(module, nn.AlphaDropout) for module in network.modules()) == 8
    blocks = [module for module in network.modules() if isinstance(module, ResNeXtBlock3D)]
    maps = torch.rand(1, 64, 2, 3, 3)
    assert torch.equal(blocks[0](maps), maps)
    groups = [block.branches[2].groups for block in blocks]
    assert groups == [32] * 8
    for module in network.modules():
        if isinstance(module, nn.Conv3d) and module.weight.numel() > 20_000:
            incoming = module.weight[0].numel()
            assert module.weight.var().item() == pytest.approx(1 / incoming, rel=0.05)
            assert module.bias is not None
            assert not module.bias.any()


def test_grouped_convolutions_are_branches_that_are_joined() -> None:
    block = ResNeXtBlock3D(8, 2, 0.0).eval()
    nn.init.constant_(block.rezero, 0.5)
    maps = torch.rand(1, 8, 3, 4, 4)
    first, _, second, _, _, last = block.branches
    branches = []
    for half in (slice(0, 2), slice(2, 4)):
        low = torch.selu(nn.functional.conv3d(maps, first.weight[half], first.bias[half]))
        branches.append(torch.selu(nn.functional.conv3d(low, second.weight[half], second.bias[half], padding=1)))
    joined = last(torch.cat(branches, dim=1))
    squeeze, excite = block.attention.fc[0], block.attention.fc[2]
    gate = torch.sigmoid(excite(torch.selu(squeeze(joined.mean(dim=(2, 3, 4))))))
    expected = maps + 0.5 * gate[:, :, None, None, None] * joined
    assert torch.allclose(block(maps), expected, atol=1e-6)


def test_resnext_sees_no_gain_and_no_offset() -> None:
    encoder = ResNeXt3D(2, 4, 0.0).eval()
    images = visits(4, 1)[0][0]
    changed = torch.cat([images[:, :1] * 0.3 + 40, images[:, 1:] * 0.5], dim=1)
    assert torch.allclose(encoder(images), encoder(changed), atol=1e-4)


def test_clinical_values_are_scaled_and_carried_forward() -> None:
    nan = np.nan
    values = np.array([[nan, 3.0, 50.0], [12.0, nan, 51.0], [nan, 6.0, nan]])
    found = scale_clinical(values, ("fs_ambulation", "fs_visual", "age"), {})
    assert found.tolist() == pytest.approx(np.array([[0, 0.5, 0.5], [1, 0.5, 0.51], [1, 1, 0.51]]))
    assert all(scale.low <= scale.usual <= scale.high for scale in RANGES.values())
    assert {name: scale.high for name, scale in RANGES.items() if name.startswith("fs_")} == {
        "fs_visual": 6,
        "fs_brainstem": 5,
        "fs_pyramidal": 6,
        "fs_cerebellar": 5,
        "fs_sensory": 6,
        "fs_bowel_bladder": 6,
        "fs_cerebral": 5,
        "fs_ambulation": 12,
    }
