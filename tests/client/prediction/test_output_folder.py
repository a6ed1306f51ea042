"""Predictions are written into a folder of their own, never over what MSFL did not make."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from msfl_client.prediction.output_folder import DESCRIPTION, check_apart, describe_output
from msfl_common.errors import InputError
from msfl_common.models.model_card import ModelCard


def describe(output: Path, source: Path, weights: str = "a" * 64) -> None:
    card = SimpleNamespace(study=SimpleNamespace(name="s"), weights_sha256=weights)
    describe_output(output, source, cast(ModelCard, card), "MS lesions", "nobody")


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = tmp_path / "cohort" / "bids"
    (folder / "sub-01").mkdir(parents=True)
    (folder / DESCRIPTION).write_text('{"Name": "raw", "DatasetType": "raw"}')
    return folder


@pytest.mark.parametrize("where", [".", "sub-01", "new", "derivatives", "derivatives/..", ".."])
def test_raw_data_stay_as_they_are(raw: Path, where: str) -> None:
    before = sorted(raw.parent.rglob("*"))
    with pytest.raises(InputError, match="the images that are read lie"):
        describe(raw / where, raw)
    assert sorted(raw.parent.rglob("*")) == before
    assert json.loads((raw / DESCRIPTION).read_text())["Name"] == "raw"


def test_a_link_to_raw_data_is_raw_data(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(raw)
    with pytest.raises(InputError, match="the images that are read lie there"):
        describe(tmp_path / "link", raw)


@pytest.mark.parametrize("where", ["derivatives/predicted", "../predicted"])
def test_a_folder_of_its_own_is_taken_and_taken_again(raw: Path, where: str) -> None:
    for _ in range(2):
        describe(raw / where, raw)
    assert json.loads((raw / where / DESCRIPTION).read_text())["ModelWeightsSHA256"] == "a" * 64


@pytest.mark.parametrize(
    "held",
    [
        {"notes.txt": "mine"},
        {DESCRIPTION: '{"Name": "other", "DatasetType": "raw"}'},
        {DESCRIPTION: '{"DatasetType": "derivative", "GeneratedBy": [{"Name": "fmriprep"}]}'},
        {DESCRIPTION: "damaged"},
    ],
)
def test_what_others_made_is_left_alone(raw: Path, tmp_path: Path, held: dict[str, Any]) -> None:
    output = tmp_path / "out"
    output.mkdir()
    for name, text in held.items():
        (output / name).write_text(text)
    with pytest.raises(InputError, match="holds files that `predict` did not write"):
        describe(output, raw)
    assert {path.name: path.read_text() for path in output.iterdir()} == held


def test_two_models_do_not_share_a_folder(raw: Path, tmp_path: Path) -> None:
    describe(tmp_path / "out", raw)
    with pytest.raises(InputError, match="holds what another model predicted"):
        describe(tmp_path / "out", raw, "b" * 64)


def test_what_explains_names_a_folder_of_its_own(raw: Path) -> None:
    with pytest.raises(InputError, match=r"another --output, such as .*/derivatives/explained"):
        check_apart(raw, raw, "explained")
