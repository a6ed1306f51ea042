"""What a network takes over from another: names, shapes and contrasts held against arithmetic done by hand."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.deep import KINDS, tiny_study
from tests.networks import NAMES, SMALL, study_of

from msfl_common.config.study import Inputs, StudyConfig, Training
from msfl_common.errors import InputError
from msfl_common.models.first_weights import FIRST_FILE, first_content, kept_first, kept_start
from msfl_common.models.model_folder import Provenance, load_model, save_model
from msfl_common.models.network import build_network, get_weights
from msfl_common.models.starting_weights import say_start, started
from msfl_common.models.weights import Weights, to_safetensors
from msfl_common.monai_parts import nets
from msfl_common.networks.registry import DynUNet, UNet
from msfl_common.strategies.fedbn import FedBN

STUDY = StudyConfig(name="pilot", network=UNet(channels=(2, 4)), training=Training(patch_voxels=8))
FIRST = "model.0.conv.unit0.conv.weight"


def seeing(study: StudyConfig, *contrasts: str, **changes: Any) -> StudyConfig:
    return study.model_copy(update={"inputs": study.inputs.model_copy(update={"contrasts": contrasts}), **changes})


def saved(study: StudyConfig, folder: Path, sites: tuple[str, ...] = ("a",)) -> tuple[Path, Weights]:
    weights = {name: value + np.float32(1) for name, value in started(study)[0].items()}
    save_model(folder, study, weights, Provenance(rounds_completed=3, sites=dict.fromkeys(sites, 5)))
    return folder, weights


def equal(one: Weights, other: Weights) -> bool:
    return list(one) == list(other) and all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("network", SMALL, ids=NAMES)
def test_the_same_network_takes_everything_over(network: Any, tmp_path: Path) -> None:
    folder, weights = saved(study_of(network), tmp_path / "model")
    found, told = started(study_of(network).model_copy(update={"seed": 7, "name": "next"}), folder)
    assert equal(found, weights)
    assert told is not None
    assert (told.kind, told.study, told.sites, told.num_taken) == ("model folder", "tiny", ("a",), len(weights))
    assert (told.adapted, told.anew, told.is_split_alike) == ((), (), False)
    assert told.weights_sha256 == load_model(folder)[0].weights_sha256


@pytest.mark.parametrize("network", SMALL, ids=NAMES)
def test_contrasts_keep_their_weights_and_new_ones_have_the_mean(network: Any, tmp_path: Path) -> None:
    folder, weights = saved(study_of(network), tmp_path / "model")
    turned, told = started(seeing(study_of(network), "FLAIR", "T1w"), folder)
    wider, _ = started(seeing(study_of(network), "FLAIR", "T2w", "T1w"), folder)
    assert told is not None
    assert told.adapted
    for name in told.adapted:
        assert np.array_equal(turned[name], weights[name][:, ::-1])
        assert np.array_equal(wider[name][:, [2, 0]], weights[name])
        assert np.allclose(wider[name][:, 1], weights[name].mean(axis=1))
    assert all(np.array_equal(turned[name], weights[name]) for name in weights if name not in told.adapted)
    assert FIRST.replace("model", "network.model") in told.adapted or network.kind != "unet" or network.dimensions == 3


def test_the_visit_before_starts_as_the_same_contrast(tmp_path: Path) -> None:
    folder, weights = saved(STUDY, tmp_path / "model")
    two = StudyConfig.model_validate({**STUDY.model_dump(), "task": "new-lesions", "inputs": {"contrasts": ("FLAIR",)}})
    found, _ = started(two, folder)
    assert np.array_equal(found[FIRST], weights[FIRST][:, [1, 1]])


@pytest.mark.parametrize("kind", KINDS)
def test_deep_models_take_over_all_but_the_layer_of_other_classes(kind: str, tmp_path: Path) -> None:
    folder, weights = saved(tiny_study(kind), tmp_path / "model")
    assert equal(started(tiny_study(kind, seed=3), folder)[0], weights)
    plain = tiny_study(kind, seed=3).model_dump(mode="json")
    plain["classification"]["outcome"] = {"column": "grade", "classes": ["a", "b", "c"]}
    plain["classification"]["clinical"] = ["fs_visual", "sex", "age"]
    study = StudyConfig.model_validate(plain)
    found, told = started(study, folder)
    assert told is not None
    assert told.anew == ("output.weight", "output.bias")
    assert told.adapted == ("recurrent.weight_ih_l0",)
    first = started(study)[0]
    assert all(np.array_equal(found[name], first[name]) for name in told.anew)
    visit, before = found["recurrent.weight_ih_l0"], weights["recurrent.weight_ih_l0"]
    assert np.array_equal(visit[:, :-3], before[:, :-2])  # features and flags
    assert np.array_equal(visit[:, [-3, -1]], before[:, [-1, -2]])
    assert np.array_equal(visit[:, -2], first["recurrent.weight_ih_l0"][:, -2])


def test_slices_of_a_contrast_stay_together(tmp_path: Path) -> None:
    folder, weights = saved(tiny_study("pretrained-resnet2d"), tmp_path / "model")
    found, _ = started(seeing(tiny_study("pretrained-resnet2d"), "FLAIR"), folder)
    name = "encoder.embedding.1.weight"
    assert np.array_equal(found[name], weights[name][:, 8:])


def test_a_checkpoint_of_another_study_is_a_start(tmp_path: Path) -> None:
    weights = {name: value + np.float32(1) for name, value in started(STUDY)[0].items()}
    folder = tmp_path / "run" / "checkpoints" / "round_0002"
    folder.mkdir(parents=True)
    (folder / "weights.safetensors").write_bytes(to_safetensors(weights))
    (folder / "state.json").write_text(json.dumps({"round": 2, "sites": [{"name": "b"}, {"name": "pooled"}]}))
    with pytest.raises(InputError, match=r"no settings of its study lie in .*run\.json or study\.json"):
        started(STUDY, folder)
    for file, content in (("run.json", {"study": STUDY.model_dump(mode="json")}), ("study.json", None)):
        (tmp_path / "run" / file).write_text(json.dumps(content or STUDY.model_dump(mode="json")))
        found, told = started(STUDY.model_copy(update={"name": "next"}), folder)
        assert equal(found, weights)
        assert told is not None
        assert (told.kind, told.study, told.sites, told.is_split_alike) == ("checkpoint", "pilot", ("b",), True)
        (tmp_path / "run" / file).unlink()


def bundle(folder: Path, network: torch.nn.Module, **image: Any) -> Path:
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "configs" / "metadata.json").write_text(json.dumps({"network_data_format": {"inputs": {"image": image}}}))
    torch.save(network.state_dict(), folder / "models" / "model.pt")
    return folder


def monai_unet(num_contrasts: int, num_classes: int) -> torch.nn.Module:
    norm = ("INSTANCE", {"affine": True})
    made: torch.nn.Module = nets.UNet(3, num_contrasts, num_classes, (2, 4), (2,), num_res_units=2, norm=norm)
    return made


def test_a_monai_bundle_is_a_start_for_the_same_network(tmp_path: Path) -> None:
    network = monai_unet(2, 2)
    state = {name: value.numpy() for name, value in network.state_dict().items()}
    told_channels = bundle(tmp_path / "b", network, num_channels=2, channel_def={"0": "flair", "1": "T1"})
    found, told = started(STUDY, told_channels)
    assert told is not None
    assert told.kind == "MONAI bundle"
    assert set(told.anew) == {name for name in found if found[name].shape != state[name].shape}  # one map here
    assert "model.2.1.conv.unit0.conv.bias" in told.anew
    assert np.array_equal(found[FIRST], state[FIRST][:, ::-1])
    with pytest.raises(
        InputError, match=r"metadata\.json: channel_def names T1 twice; say what each input channel shows"
    ):
        started(STUDY, bundle(tmp_path / "twice", network, num_channels=2, channel_def={"0": "T1", "1": "T1w"}))
    first = get_weights(build_network(STUDY))
    assert all(np.array_equal(found[name], first[name]) for name in told.anew)
    same = [name for name in state if name not in (*told.anew, *told.adapted)]
    assert len(same) > 5
    assert all(np.array_equal(found[name], state[name]) for name in same)
    in_order, _ = started(STUDY, bundle(tmp_path / "c", network, num_channels=2))
    assert np.array_equal(in_order[FIRST], state[FIRST])


def test_the_second_names_of_monais_dynunet_are_left_aside(tmp_path: Path) -> None:
    settings = DynUNet(channels=(2, 4, 4))
    network = nets.DynUNet(3, 2, 1, (3,) * 3, (1, 2, 2), (2, 2), filters=(2, 4, 4))
    found, told = started(study_of(settings), bundle(tmp_path / "b", network))
    assert told is not None
    assert told.num_taken == len(found) < len(network.state_dict())
    assert all(np.array_equal(value, network.state_dict()[name].numpy()) for name, value in found.items())


class Runs:
    """A pickle of it would run code."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("run",))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"network": UNet(channels=(2, 8))}, r"network\.channels is \[2, 4\] there and \[2, 8\] in study next"),
        ({"inputs": Inputs(spacing_mm=1.0)}, r"inputs\.spacing_mm is 2\.0 there and 1\.0 in study next"),
        ({"inputs": Inputs(contrasts=("T2w",))}, "sees T1w, FLAIR, and none of the study's contrasts, T2w"),
        ({"strategy": FedBN()}, "strategy fedbn keeps layers at the sites"),
    ],
)
def test_a_model_folder_of_other_inputs_is_refused_by_name(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    folder, _ = saved(STUDY, tmp_path / "model")
    with pytest.raises(InputError, match=words) as caught:
        started(STUDY.model_copy(update={"name": "next", **changes}), folder)
    assert "\n" not in str(caught.value)


def test_what_is_no_start_is_refused_in_one_line(tmp_path: Path) -> None:
    folder, _ = saved(STUDY, tmp_path / "model")
    outcome, _ = saved(tiny_study("resnext"), tmp_path / "outcome")
    (tmp_path / "resnet18.safetensors").write_bytes(to_safetensors({"a": np.zeros(2, np.float32)}))
    wide = bundle(tmp_path / "wide", nets.UNet(3, 2, 1, (2, 8), (2,), norm=("INSTANCE", {"affine": True})))
    plain = bundle(tmp_path / "plain", nets.UNet(3, 2, 1, (2, 4), (2,), num_res_units=2))
    runs = bundle(tmp_path / "runs", monai_unet(2, 1))
    torch.save({"model": Runs()}, runs / "models" / "model.pt")
    features = StudyConfig.model_validate(
        {
            "name": "s",
            "task": "classification",
            "classification": {"outcome": {"endpoint": "activity"}, "clinical": ["age"], "model": {"kind": "lda"}},
        }
    )
    for study, start_from, words in (
        (STUDY, outcome, "what it learns is an outcome there and lesions"),
        (STUDY, tmp_path / "resnet18.safetensors", "expected a model folder, a checkpoint .* found a file"),
        (STUDY, tmp_path / "none", "no such folder"),
        (STUDY, wide, "found others: model"),
        (STUDY, plain, r"found others: model.* \(\d+ are missing, 0 are strange\)"),
        (STUDY, runs, "nothing that would have to be run: UnpicklingError"),
        (tiny_study("resnet3d"), outcome, r"classification\.model\.kind is resnext there and resnet3d"),
        (tiny_study("resnet3d"), folder, "what it learns is lesions there and an outcome"),
        (tiny_study("lesion-encoder"), folder, r"inputs\.spacing_mm is 2\.0 there and 4\.0 .* keeps that network"),
        (features, folder, "lda is learned from sums or trees and starts from nothing"),
    ):
        with pytest.raises(InputError, match=words) as caught:
            started(study, start_from)
        assert "\n" not in str(caught.value)


def test_a_run_goes_on_from_what_it_kept_when_the_source_is_gone(tmp_path: Path) -> None:
    folder, _ = saved(STUDY, tmp_path / "model", sites=("a", "b"))
    study = STUDY.model_copy(update={"seed": 9})
    first, told = started(study, folder)
    sentence = say_start(study, folder, told)
    assert sentence is not None
    assert "trained at a, b, with another split" in sentence
    assert "not signed" in sentence
    assert equal(kept_first(tmp_path / FIRST_FILE, lambda: first_content(first, told)), first)
    assert equal(kept_first(tmp_path / FIRST_FILE, lambda: pytest.fail("made anew")), first)
    assert kept_start(tmp_path) == told
    assert kept_start(tmp_path / "elsewhere") is None
    card = save_model(tmp_path / "next", study, first, Provenance(rounds_completed=1, sites={}), started_from=told)
    assert load_model(tmp_path / "next")[0].started_from == card.started_from == told


@pytest.mark.parametrize("state", ['{"sites": 3}', '{"sites": [{"name": "a b"}]}', '{"round": 2}'])
def test_a_checkpoint_that_names_no_sites_is_refused(state: str, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints" / "round_0001"
    folder.mkdir(parents=True)
    (folder / "weights.safetensors").write_bytes(to_safetensors(started(STUDY)[0]))
    (tmp_path / "study.json").write_text(json.dumps(STUDY.model_dump(mode="json")))
    (folder / "state.json").write_text(state)
    with pytest.raises(InputError, match="does not name the sites that trained it"):
        started(STUDY, folder)


def test_arrays_that_are_none_of_a_network_are_refused(tmp_path: Path) -> None:
    good = {name: torch.from_numpy(value) for name, value in started(STUDY)[0].items()}
    huge = torch.zeros(1, dtype=torch.float16).as_strided((1 << 20, 1 << 20), (0, 0))  # 2 bytes in the file
    folder = bundle(tmp_path / "b", monai_unet(2, 1))
    for value, words in (
        (huge, "found one of 4398046511104 bytes"),
        (good[FIRST].to_sparse(), "found another kind"),
        (good[FIRST].to("meta"), "found another kind"),
        (good[FIRST].to(torch.complex64), "found another kind"),
    ):
        torch.save({**good, FIRST: value}, folder / "models" / "model.pt")
        with pytest.raises(InputError, match=words):
            started(STUDY, folder)
    torch.save({name: torch.tensor(1.0) for name in good}, folder / "models" / "model.pt")
    with pytest.raises(InputError, match=r"expected \[4, 2, 3, 3, 3\]|expected \[2, 2, 3, 3, 3\], found \[\]"):
        started(STUDY, folder)
    (folder / "models" / "model.pt").unlink()
    os.mkfifo(folder / "models" / "model.pt")
    with pytest.raises(InputError, match="found a pipe or a device"):
        started(STUDY, folder)


def test_first_weights_that_a_run_did_not_write_are_refused(tmp_path: Path) -> None:
    file, first = tmp_path / FIRST_FILE, started(STUDY)[0]
    kept_first(file, lambda: first_content(first, None))
    whole = file.read_bytes()
    for content in (whole[:-50], b"text", whole[:-1] + b"?", to_safetensors(first)):
        file.write_bytes(content)
        with pytest.raises(InputError, match="is not what this run wrote and started from, by first_weights"):
            kept_first(file, lambda: pytest.fail("made anew"))
    file.with_name(f"{FIRST_FILE}.sha256").unlink()  # as runs of earlier versions
    for content in (whole[:-50], b"text", to_safetensors(first)):
        file.write_bytes(content)
        with pytest.raises(InputError, match="is damaged"):
            kept_first(file, lambda: pytest.fail("made anew"))
    file.write_bytes(whole)
    assert equal(kept_first(file, lambda: pytest.fail("made anew")), first)
    with pytest.raises(InputError, match="is not what this run wrote and started from"):
        kept_start(tmp_path)


@pytest.mark.parametrize("network", SMALL, ids=NAMES)
def test_the_last_layer_starts_anew_where_classes_of_lesions_differ(network: Any, tmp_path: Path) -> None:
    plain = study_of(network)
    inputs = plain.inputs.model_copy(update={"lesion_classes": ("lesion", "black-hole")})
    told_apart = plain.model_copy(update={"inputs": inputs})
    folder, weights = saved(plain, tmp_path / "model")
    found, told = started(told_apart, folder)
    assert told is not None
    assert told.anew
    assert not told.adapted
    own = get_weights(build_network(told_apart))
    assert all(np.array_equal(found[name], (own if name in told.anew else weights)[name]) for name in found)
    assert all(len(np.atleast_1d(own[name])) != len(np.atleast_1d(weights[name])) for name in told.anew[-1:])
    other = told_apart.model_copy(
        update={"inputs": inputs.model_copy(update={"lesion_classes": ("lesion", "enhancing")})}
    )
    again, _ = saved(told_apart, tmp_path / "apart")
    assert started(other, again)[1].anew == told.anew  # type: ignore[union-attr]
    assert not started(told_apart, again)[1].anew  # type: ignore[union-attr]
