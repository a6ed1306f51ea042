"""A model folder loads as it was saved, and not at all when it was touched."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load

from msfl_common.config.study import StudyConfig, Training
from msfl_common.errors import ModelFolderError
from msfl_common.models.model_folder import Provenance, load_model, save_model
from msfl_common.models.network import build_network, get_weights
from msfl_common.models.weights import to_safetensors
from msfl_common.networks.registry import UNet

STUDY = StudyConfig(name="pilot", network=UNet(channels=(2, 4)), training=Training(patch_voxels=8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    weights = get_weights(build_network(STUDY))
    save_model(tmp_path / "model", STUDY, weights, Provenance(rounds_completed=3, sites={"a": 5}))
    return tmp_path / "model"


def test_it_loads_as_it_was_saved(folder: Path) -> None:
    card, weights = load_model(folder)
    expected = get_weights(build_network(STUDY))
    assert card.study == STUDY
    assert list(weights) == list(expected)
    assert all(np.array_equal(weights[name], expected[name]) for name in expected)
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "model.safetensors", "signature.json"]


def test_arrays_are_kept_however_they_lie_in_memory() -> None:
    rows = np.arange(6.0).reshape(2, 3)
    weights = {"by_row": rows, "by_column": np.asfortranarray(rows), "turned": rows.T, "number": np.array(7.0)}
    loaded = load(to_safetensors(weights))
    assert {name: value.tolist() for name, value in loaded.items()} == {n: v.tolist() for n, v in weights.items()}


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ModelFolderError, match=f"{name} is missing"):
        load_model(folder)


def test_altered_weights_are_found(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelFolderError, match="altered or damaged"):
        load_model(folder)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema_version": 2}', "\udcff"])
def test_a_damaged_card_is_found(folder: Path, text: str) -> None:
    (folder / "model.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ModelFolderError, match="not a model card"):
        load_model(folder)


def test_a_runs_folder_names_the_model_in_it(folder: Path) -> None:
    with pytest.raises(ModelFolderError, match=f"model.json is missing; name {folder}$"):
        load_model(folder.parent)


def test_a_card_that_may_not_be_read_is_not_called_damaged(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path, most: int) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("msfl_common.system.reading.read_bounded", refused)
    with pytest.raises(ModelFolderError, match=r"model\.json: cannot be read: Permission denied; grant read access"):
        load_model(folder)


def test_a_card_for_another_architecture_is_found(folder: Path) -> None:
    card = json.loads((folder / "model.json").read_text())
    card["study"]["network"]["channels"] = [2, 8]
    (folder / "model.json").write_text(json.dumps(card))
    (folder / "signature.json").unlink()
    with pytest.raises(ModelFolderError, match="does not fit the architecture"):
        load_model(folder)
