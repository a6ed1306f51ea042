"""Frozen layers: named, left as they are at the sites, held at the coordinator, and thawed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tests.client.segmentation.test_loop import STUDY
from tests.deep import learnable_sequence, tiny_study
from tests.networks import NAMES, SMALL, study_of
from tests.server.rounds.test_loop import Killed, Recorder, equal, grid_of, sites

from msfl_client.classification.deep_loop import train_round
from msfl_client.personal.arms import tuned
from msfl_client.training.frozen import frozen_layers
from msfl_common.config.frozen_layers import frozen_names
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import StudyConfig
from msfl_common.errors import InputError
from msfl_common.models.deep_models import build_classifier
from msfl_common.models.network import build_network, get_weights
from msfl_common.models.starting_weights import starting_weights
from msfl_common.models.weights import Weights
from msfl_common.networks.slices import AxialSlices
from msfl_server.rounds import loop
from msfl_server.rounds.checkpoint import load_checkpoint
from msfl_server.rounds.loop import run_rounds

__all__ = ["sites"]


def freezing(study: StudyConfig, *layers: str, **changes: Any) -> StudyConfig:
    plain = study.model_dump(mode="json")
    plain["training"] |= {"freeze": list(layers), **changes}
    return StudyConfig.model_validate(plain)


@pytest.mark.parametrize("settings", SMALL, ids=NAMES)
def test_the_encoder_is_the_way_down_of_every_network(settings: Any) -> None:
    study = freezing(study_of(settings), "encoder")
    network = build_network(study)
    bare = network.network if isinstance(network, AxialSlices) else network
    assert isinstance(bare, torch.nn.Module)
    shown = {id(value) for module in settings.encoder(bare) for value in module.parameters()}
    if settings.kind in ("unet", "dynunet", "attention-unet"):
        expected = {name for name, value in network.named_parameters() if id(value) in shown}
    else:  # what comes before the levels is of the encoder, too
        expected = {name for name, value in network.named_parameters() if id(value) in shown} | {
            name for name in get_weights(network) if "convInit" in name or "swinViT" in name
        }
    found = frozen_names(study, 1, [*get_weights(network)])
    assert found == expected
    assert not found & set([*get_weights(network)][-2:])


def test_layers_are_named_as_in_a_models_file() -> None:
    names = [*get_weights(build_network(STUDY))]
    for layers, number, expected in (
        (("model.0",), 1, [name for name in names if name.startswith("model.0.")]),
        (("*.bias",), 1, [name for name in names if name.endswith(".bias")]),
        ((names[0],), 1, names[:1]),
        (("model.0",), 3, []),
        ((), 1, []),
    ):
        study = freezing(STUDY, *layers, **({"freeze_rounds": 2} if layers else {}))
        assert frozen_names(study, number, names) == set(expected)


def test_statistics_of_frozen_layers_stay_and_thawed_ones_move() -> None:
    study = freezing(tiny_study("resnet3d"), "encoder", freeze_rounds=1, steps_per_round=2)
    sequences = [learnable_sequence(seed, seed % 2) for seed in range(4)]
    network = build_classifier(study)
    before = get_weights(network)
    device = torch.device("cpu")
    train_round(network, sequences, study, 1, device, lambda *_: None)
    after = get_weights(network)
    assert {name for name in after if np.array_equal(after[name], before[name])} == {
        name for name in after if name.startswith("encoder.")
    }
    assert all(value.requires_grad for value in network.parameters())
    train_round(network, sequences, study, 2, device, lambda *_: None)
    thawed = get_weights(network)
    assert not any(np.array_equal(thawed[name], after[name]) for name in thawed if name.endswith("running_mean"))


def test_what_is_frozen_by_itself_stays_so() -> None:
    study = freezing(tiny_study("lesion-encoder"), "encoder")
    network = build_classifier(study)
    with frozen_layers(network, study, 1):
        assert not any(value.requires_grad for value in network.encoder.parameters())
    assert not any(value.requires_grad for name, value in network.named_parameters() if ".unet." in name)
    assert all(value.requires_grad for name, value in network.named_parameters() if ".unet." not in name)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["fedavg", "fedadam"])
def test_frozen_layers_are_the_same_bits_after_rounds_and_a_kill(
    strategy: str, sites: list[SiteConfig], tiny_study: StudyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = tiny_study.model_dump(mode="json") | {"strategy": {"kind": strategy}}
    plain["training"] |= {"steps_per_round": 1}
    plain["rounds"] |= {"num_rounds": 3, "quorum": 3}
    study = freezing(StudyConfig.model_validate(plain), "encoder", freeze_rounds=2)
    first = starting_weights(study)
    frozen = frozen_names(study, 1, first)
    seen: dict[int, Weights] = {}
    once = loop.train_at_sites

    def recorded(this: Any) -> Any:
        trained = once(this)
        seen[this.task.round] = trained.weights
        return trained

    monkeypatch.setattr(loop, "train_at_sites", recorded)
    final = run_rounds(grid_of(sites), study, first, tmp_path / "whole", Recorder())
    for number in (1, 2):
        same = {name for name in first if np.array_equal(seen[number][name], first[name])}
        assert same == frozen
    assert not any(np.array_equal(final.weights[name], first[name]) for name in frozen if "weight" in name)
    with pytest.raises(Killed):
        run_rounds(grid_of(sites), study, first, tmp_path / "killed", Recorder(die_after=2))
    kept = load_checkpoint(tmp_path / "killed", study, first)
    assert kept is not None
    assert kept.state.round == 2
    assert equal(run_rounds(grid_of(sites), study, first, tmp_path / "killed", Recorder()).weights, final.weights)


def test_a_site_that_changes_a_frozen_layer_changes_nothing(
    sites: list[SiteConfig], tiny_study: StudyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = tiny_study.model_dump(mode="json")
    plain["training"] |= {"steps_per_round": 1}
    plain["rounds"] |= {"num_rounds": 1, "quorum": 1}
    study = freezing(StudyConfig.model_validate(plain), "encoder")
    first = starting_weights(study)
    monkeypatch.setattr("msfl_client.segmentation.loop.frozen_layers", lambda *_: frozen_layers_of_none())
    final = run_rounds(grid_of(sites[:1]), study, first, tmp_path / "out", Recorder())
    frozen = frozen_names(study, 1, first)
    assert {name for name in first if np.array_equal(final.weights[name], first[name])} == frozen


def frozen_layers_of_none() -> Any:
    return frozen_layers(torch.nn.Identity(), STUDY, 1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (lambda plain: plain["training"].update(freeze=[], freeze_rounds=2), "there is nothing frozen"),
        (lambda plain: plain.update(strategy={"kind": "fedbn"}), "strategy fedbn keeps layers at the sites"),
        (lambda plain: plain.update(baselines={"local": True}), "baselines.local: a site's own model starts from"),
        (lambda plain: plain["training"].update(freeze=["model 0"]), "a layer's name of letters"),
    ],
)
def test_what_cannot_be_frozen_is_refused_by_name(changes: Callable[[dict[str, Any]], None], words: str) -> None:
    plain = freezing(STUDY, "encoder").model_dump(mode="json")
    changes(plain)
    with pytest.raises(ValidationError, match=words):
        StudyConfig.model_validate(plain)


def test_an_entry_of_no_layer_and_one_of_all_are_refused_before_the_first_round() -> None:
    with pytest.raises(InputError, match=r"training\.freeze: decoder: no layer .* such as model\.0"):
        starting_weights(freezing(STUDY, "decoder"))
    with pytest.raises(InputError, match="leaves nothing"):
        starting_weights(freezing(STUDY, "model"))


def test_a_site_that_goes_on_from_a_model_keeps_what_stayed_frozen_to_the_end() -> None:
    assert tuned(freezing(STUDY, "encoder"))[0].training.freeze == ("encoder",)
    assert tuned(freezing(STUDY, "encoder", freeze_rounds=1))[0].training.freeze == ()
