"""A private round of a deep model: each patient by himself, the same when it is trained again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.deep import learnable_sequence, tiny_study

from msfl_client.classification.private_deep_loop import train_privately
from msfl_client.classification.visit_sequences import VisitSequence
from msfl_client.privacy.round import PrivateRounds, in_order
from msfl_client.privacy.spent import read_spent
from msfl_client.trainer import identities_of
from msfl_client.training.site_strategy import Start
from msfl_common.config.differential_privacy import DifferentialPrivacy
from msfl_common.config.site import SiteConfig
from msfl_common.models.deep_models import build_classifier
from msfl_common.models.network import get_weights

SEQUENCES = [replace(learnable_sequence(seed, seed % 2, 2), patient=f"p{seed // 2}") for seed in range(6)]


def trained(state: Path, sequences: list[VisitSequence], noise: float = 1.0) -> dict[str, Any]:
    study = tiny_study("resnext")
    update = {
        "differential_privacy": DifferentialPrivacy(noise_multiplier=noise, sampling_rate=0.6),
        "training": study.training.model_copy(update={"steps_per_round": 2}),
    }
    study = study.model_copy(update=update)
    network = build_classifier(study)
    before = get_weights(network)
    site = SiteConfig(name="a", data=(Path("bids"),), state=state)
    patients = in_order(one.patient for one in sequences)
    rounds = PrivateRounds(site, study, study.name, patients, torch.device("cpu"), identities_of(patients))
    train_privately(network, sequences, rounds, Start(1, before, before, {}, {}), lambda *_: None)
    return get_weights(network)


@pytest.mark.slow
def test_a_round_is_the_same_when_it_is_trained_again_and_another_of_other_patients(tmp_path: Path) -> None:
    first, again = trained(tmp_path, SEQUENCES), trained(tmp_path, SEQUENCES)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    changed = [replace(SEQUENCES[0], label=1 - SEQUENCES[0].label), *SEQUENCES[1:]]
    other = trained(tmp_path, changed)
    assert not any(np.array_equal(first[name], other[name]) for name in first)  # with noise of its own
    assert [one.times for one in read_spent(tmp_path).releases] == [2, 2]


@pytest.mark.slow
def test_clipping_alone_spends_nothing(tmp_path: Path) -> None:
    trained(tmp_path, SEQUENCES, noise=0.0)
    assert read_spent(tmp_path).releases == ()
