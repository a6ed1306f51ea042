"""What earlier versions have stored is read; what people write is to be in today's words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from msfl_common.config.study import StudyConfig, Training, load_study, parse_study
from msfl_common.errors import ConfigError
from msfl_common.models.model_folder import Provenance, load_model, save_model
from msfl_common.models.starting_weights import starting_weights
from msfl_common.networks.registry import UNet
from msfl_server.research.simulation.folder import RunSetup, read_setup, write_setup

STUDY = StudyConfig(name="pilot", network=UNet(channels=(2, 4), residual_units=1), training=Training(patch_voxels=8))


def earlier(study: dict[str, Any]) -> dict[str, Any]:
    """A study's JSON as version 0.1 wrote it before networks had kinds."""
    network = {name: value for name, value in study["network"].items() if name in ("channels", "residual_units")}
    return {("model" if name == "network" else name): network if name == "network" else study[name] for name in study}


def test_a_stored_study_is_read_in_its_earlier_form() -> None:
    text = json.dumps(earlier(json.loads(STUDY.model_dump_json())))
    assert '"model": {"channels": [2, 4], "residual_units": 1}' in text
    assert parse_study(text) == STUDY


def test_a_model_folder_is_read_in_its_earlier_form(tmp_path: Path) -> None:
    weights = starting_weights(STUDY)
    save_model(tmp_path / "model", STUDY, weights, Provenance(rounds_completed=3, sites={"a": 5}))
    card = json.loads((tmp_path / "model" / "model.json").read_text())
    (tmp_path / "model" / "model.json").write_text(json.dumps(card | {"study": earlier(card["study"])}))
    (tmp_path / "model" / "signature.json").unlink()
    read, stored = load_model(tmp_path / "model")
    assert read.study == STUDY
    assert list(stored) == list(weights)


def test_a_run_is_read_in_its_earlier_form(tmp_path: Path) -> None:
    write_setup(tmp_path, RunSetup(study=STUDY, sites=()))
    run = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(run | {"study": earlier(run["study"])}))
    assert read_setup(tmp_path).study == STUDY


@pytest.mark.parametrize("section", ["{channels: [2, 4]}", "{}", "null", "unet"])
def test_whoever_writes_a_study_is_told_the_new_word(tmp_path: Path, section: str) -> None:
    (tmp_path / "study.yaml").write_text(f"name: pilot\nmodel: {section}\n")
    with pytest.raises(ConfigError, match="model: is called network now; write `network:` for it, and `kind: unet`"):
        load_study(tmp_path / "study.yaml")


def test_both_words_at_once_are_refused() -> None:
    both = json.loads(STUDY.model_dump_json()) | {"model": {"channels": [2, 4]}}
    with pytest.raises(ConfigError, match="model: unknown key"):
        parse_study(json.dumps(both))
