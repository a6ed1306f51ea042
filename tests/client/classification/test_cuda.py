"""Deep models on a GPU: mixed precision, and a recurrent network whose gradient is taken outside training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.deep import KINDS, learnable_sequence, tiny_study

from msfl_client.classification.deep_loop import predict, saliency, train_round
from msfl_common.models.deep_models import build_classifier

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU and a CUDA build of PyTorch")

SEQUENCES = [learnable_sequence(seed, label, 1 + seed % 3) for seed in range(4) for label in (0, 1)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_gpu_learns_and_explains_as_a_cpu_does(kind: str) -> None:
    study = tiny_study(kind)
    cpu, cuda = torch.device("cpu"), torch.device("cuda:0")
    network = build_classifier(study)
    first = train_round(network, SEQUENCES, study, 1, cuda, lambda *_: None, 2)
    second = train_round(network, SEQUENCES, study, 2, cuda, lambda *_: None)
    assert second < first
    on_gpu = predict(network, SEQUENCES, study, cuda)
    found = saliency(network, SEQUENCES[1], study, cuda)
    assert np.isfinite(found.volumes_VCDHW).all()
    assert on_gpu == pytest.approx(predict(network, SEQUENCES, study, cpu), abs=0.05)
