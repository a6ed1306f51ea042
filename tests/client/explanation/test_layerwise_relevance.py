"""Layer-wise relevance: the networks' own values, relevance that is kept, and functions without a rule."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from tests.deep import KINDS, learnable_sequence, tiny_study
from tests.networks import NAMES, SMALL, patches, study_of
from torch import nn

from msfl_client.classification.visit_sequences import make_batch
from msfl_client.explanation.layerwise_relevance import layerwise_relevance, propagation
from msfl_client.explanation.score import Around, explained
from msfl_common.errors import InputError
from msfl_common.models.deep_models import build_classifier
from msfl_common.models.network import build_network
from msfl_common.networks.base import SegmentationNetwork


def without_offsets(network: nn.Module) -> nn.Module:
    """What biases add is nobody's relevance; without them all of the score is shared out."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "bias" in name:
                parameter.zero_()
            if "rezero" in name:
                parameter.fill_(0.7)  # else its branches have no part
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_var is not None:
                module.running_var.uniform_(0.5, 2.0, generator=torch.Generator().manual_seed(0))
    return network.eval().requires_grad_(False)


@pytest.mark.parametrize(
    "network", [one for one in SMALL if one.kind != "swin-unetr"], ids=[name for name in NAMES if "swin" not in name]
)
def test_residual_blocks_skips_and_gates_count_no_relevance_twice(network: SegmentationNetwork) -> None:
    study = study_of(network)
    made = without_offsets(build_network(study))
    images = torch.from_numpy(patches(study)).requires_grad_()
    logits = made(images)
    with propagation():
        same = made(images)
    assert torch.equal(same, logits)
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))
    score = (weights * same).sum()
    (gradient,) = torch.autograd.grad(score, images)
    assert (images * gradient).sum().item() == pytest.approx(score.item(), rel=1e-3)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("kind", KINDS[:3])
def test_visits_in_sequence_share_the_score_with_clinical_values(kind: str) -> None:
    study = tiny_study(kind)
    network = without_offsets(build_classifier(study))
    with torch.no_grad():
        network.recurrent.weight_ih_l0[:, network.num_features : network.num_features + 2] = 0  # which were scanned
    batch = make_batch([learnable_sequence(0, 1, 2)], study)
    images, clinical = batch.images_BVCDHW.requires_grad_(), batch.clinical_BVE.requires_grad_()
    with propagation():
        score = network(images, clinical, batch.present_BV)[0, 1]
    of_images, of_clinical = torch.autograd.grad(score, [images, clinical])
    total = (images * of_images).sum() + (clinical * of_clinical).sum()
    assert total.item() == pytest.approx(score.item(), rel=1e-3)
    assert of_images[0, 0].any()  # the first visit, through the second's state
    assert of_clinical[0, 0].any()


def test_a_function_without_a_rule_is_refused_by_name() -> None:
    study = study_of(SMALL[NAMES.index("swin-unetr-3d")])
    made = build_network(study).eval().requires_grad_(False)
    images = torch.from_numpy(patches(study)).requires_grad_()
    with propagation(), pytest.raises(InputError, match=r"no rule for `layer_norm`.*take integrated gradients"):
        made(images)
    study = tiny_study("lesion-encoder")
    batch = make_batch([learnable_sequence(0, 1, 1)], study)
    network, images = build_classifier(study).eval().requires_grad_(False), batch.images_BVCDHW.requires_grad_()
    with propagation(), pytest.raises(InputError, match="no rule for `where`"):
        network(images, batch.clinical_BVE, batch.present_BV)
    one = torch.rand(3).requires_grad_()
    with propagation(), pytest.raises(InputError, match="a product of two maps"):
        one * one


def test_relevance_is_that_of_what_differs_from_the_background() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(2, 3, 3, bias=False), nn.ReLU(), nn.Conv3d(3, 1, 1, bias=False))
    network.requires_grad_(False)

    def score(images: torch.Tensor, around: Around = nullcontext) -> torch.Tensor:
        with around():
            return network(images).mean()

    images = np.random.default_rng(0).uniform(1, 2, (1, 2, 6, 6, 6)).astype(np.float32)
    images[:, :, :2] = 0
    found = layerwise_relevance(explained(score, images, [(1.0, 1.0, 1.0)], torch.device("cpu")))
    assert found.explains == pytest.approx(network(torch.from_numpy(images)).mean().item())
    assert found.total == pytest.approx(found.explains, rel=1e-4)
    assert not found.map_VCDHW[:, :, :2].any()
    shifted = layerwise_relevance(explained(score, images - 1, [(1.0, 1.0, 1.0)], torch.device("cpu")))
    assert not shifted.map_VCDHW[:, :, :2].any()  # -1 is the background
