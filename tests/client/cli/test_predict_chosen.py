"""`msfl-client predict` of some patients, at another threshold, and into a folder that holds predictions."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from tests.commands import run_main

from msfl_client.cli.main import main
from msfl_common.config.study import StudyConfig
from msfl_common.models.model_folder import Provenance, save_model
from msfl_common.models.network import build_network, get_weights


@pytest.fixture
def command(tmp_path: Path, tiny_study: StudyConfig, site) -> list[Any]:  # type: ignore[no-untyped-def]
    weights = get_weights(build_network(tiny_study))
    save_model(tmp_path / "model", tiny_study, weights, Provenance(rounds_completed=1, sites={}))
    return ["predict", "--model", tmp_path / "model", "--input", site.root, "--output", tmp_path / "out"]


def rows(output: Path) -> dict[str, dict[str, str]]:
    with (output / "lesions.tsv").open(newline="") as stream:
        return {row["participant_id"]: row for row in csv.DictReader(stream, delimiter="\t")}


def stamps(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_those_that_are_named_and_no_others_are_predicted(command: list[Any], tmp_path: Path) -> None:
    done = run_main(main, *command, "--subject", "01", "--subject", "sub-03", "--json")
    assert done.returncode == 0, done.stderr
    assert [row["participant_id"] for row in json.loads(done.stdout)] == ["sub-01", "sub-03"]
    assert {path.name for path in (tmp_path / "out").glob("sub-*")} == {"sub-01", "sub-03"}
    before = stamps(tmp_path / "out" / "sub-01"), rows(tmp_path / "out")
    done = run_main(main, *command, "--subject", "sub-02")
    assert done.returncode == 0, done.stderr
    after = rows(tmp_path / "out")
    assert list(after) == ["sub-01", "sub-02", "sub-03"]
    assert ({"sub-01": after["sub-01"], "sub-03": after["sub-03"]}, stamps(tmp_path / "out" / "sub-01")) == (
        before[1],
        before[0],
    )
    whole = run_main(main, *command[:-1], tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    assert rows(tmp_path / "whole") == after


def test_a_wrong_id_is_refused_before_anything_is_written(command: list[Any], tmp_path: Path) -> None:
    done = run_main(main, *command, "--subject", "1")
    assert done.returncode == 2
    assert "no such patient: sub-1; did you mean sub-0" in done.stderr
    assert not (tmp_path / "out").exists()


def test_another_threshold_is_said_wherever_its_masks_go(command: list[Any], tmp_path: Path) -> None:
    assert run_main(main, *command[:-1], tmp_path / "own").returncode == 0
    maps = sorted((tmp_path / "own").rglob("*_probseg.nii.gz"))
    voxels = np.concatenate([np.asarray(nib.load(path).dataobj).ravel() for path in maps])
    threshold = round(float(np.median(voxels[voxels > 0.3])), 4)
    done = run_main(main, *command, "--threshold", threshold)
    assert done.returncode == 0, done.stderr
    caution = f"Threshold {threshold:g} is not the study's own, 0.3: the figures that the study reports of this model"
    assert caution in " ".join(done.stderr.split())
    assert caution in " ".join(run_main(main, *command, "--threshold", threshold, "--quiet").stderr.split())
    for path in maps:
        there = tmp_path / "out" / path.relative_to(tmp_path / "own")
        assert there.read_bytes() == path.read_bytes()
        mask = there.with_name(there.name.replace("probseg", "mask"))
        voxels = np.asarray(nib.load(mask).dataobj)
        assert np.array_equal(voxels, np.asarray(nib.load(path).dataobj) >= np.float32(threshold))
        assert json.loads(mask.with_name(mask.name.replace(".nii.gz", ".json")).read_text())["Threshold"] == threshold
    assert {row["threshold"] for row in rows(tmp_path / "out").values()} == {str(threshold)}
    assert {row["threshold"] for row in rows(tmp_path / "own").values()} == {"0.3"}
    description = json.loads((tmp_path / "out" / "dataset_description.json").read_text())
    assert (description["Threshold"], description["StudyThreshold"]) == (threshold, 0.3)
    assert caution in description["ThresholdNote"]
    mixed = run_main(main, *command, "--subject", "01")
    assert mixed.returncode == 2
    assert f"holds what this model predicted at threshold {threshold}, not 0.3" in mixed.stderr


@pytest.mark.parametrize("threshold", ["0", "1", "-0.1", "1.5", "nan", "30"])
def test_a_threshold_that_is_none_is_refused(threshold: str, command: list[Any], tmp_path: Path) -> None:
    done = run_main(main, *command, "--threshold", threshold)
    assert done.returncode == 2
    assert "expected a probability above 0 and below 1; the study's own is 0.3" in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_earlier_table_of_another_version_is_added_to(command: list[Any], tmp_path: Path) -> None:
    assert run_main(main, *command).returncode == 0
    table = tmp_path / "out" / "lesions.tsv"
    lines = [line.split("\t") for line in table.read_text().splitlines()]
    table.write_bytes("".join("\t".join(line[:5]) + "\r\n" for line in lines).encode("utf-8-sig"))
    assert run_main(main, *command, "--subject", "02").returncode == 0
    assert table.read_text() == "".join("\t".join(line) + "\n" for line in lines)


def test_a_table_that_cannot_be_read_is_left_alone(command: list[Any], tmp_path: Path) -> None:
    assert run_main(main, *command, "--subject", "02").returncode == 0
    (tmp_path / "out" / "lesions.tsv").write_text("mine\n")
    done = run_main(main, *command)
    assert done.returncode == 2
    assert "lesions.tsv: cannot be added to" in done.stderr
    assert (tmp_path / "out" / "lesions.tsv").read_text() == "mine\n"


@pytest.mark.parametrize("place", ["sub-01", "sub-01/anat", ".features"])
def test_nothing_is_written_through_a_link(place: str, command: list[Any], tmp_path: Path) -> None:
    assert run_main(main, *command, "--subject", "02").returncode == 0
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "out" / place
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(tmp_path / "elsewhere")
    done = run_main(main, *command)
    assert done.returncode == 2
    assert f"{link}: is a link, through which files would be written elsewhere" in done.stderr
    assert not [*(tmp_path / "elsewhere").iterdir()]


def test_a_link_in_the_place_of_a_file_is_replaced(command: list[Any], tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert run_main(main, *command).returncode == 0
    mask = tmp_path / "out" / "sub-01" / "anat" / "sub-01_label-lesion_mask.nii.gz"
    whole = mask.read_bytes()
    mask.unlink()
    mask.symlink_to(tmp_path / "mine.txt")
    assert run_main(main, *command).returncode == 0
    assert (tmp_path / "mine.txt").read_text() == "mine"
    assert mask.read_bytes() == whole
