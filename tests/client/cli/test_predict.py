"""`msfl-client predict` with a site's file, and without."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from tests.commands import run_main
from tests.kits import take_over

from msfl_client.cli.main import main
from msfl_client.site.folder import init_site
from msfl_common.config.site import load_site
from msfl_common.config.study import StudyConfig
from msfl_common.models.model_folder import Provenance, save_model
from msfl_common.models.network import build_network, get_weights
from msfl_server.study.folder import init_study
from msfl_server.study.model_signer import model_signer
from msfl_server.study.server_config import ServerConfig
from msfl_server.study.sites import add_site


@pytest.fixture
def model(tmp_path: Path, tiny_study: StudyConfig) -> Path:
    weights = get_weights(build_network(tiny_study))
    save_model(tmp_path / "model", tiny_study, weights, Provenance(rounds_completed=1, sites={}))
    return tmp_path / "model"


@pytest.fixture
def site_file(make_site, tmp_path: Path) -> Path:
    made = make_site(subjects=["sub-01"])
    return init_site(tmp_path / "site", "a", made.root, None).site_file


def test_the_sites_data_is_what_is_predicted(site_file: Path, model: Path, tmp_path: Path) -> None:
    done = run_main(main, "predict", site_file, "--model", model, "-o", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    data = load_site(site_file).data[0]
    before = run_main(main, "predict", "--model", model, "--input", data, "--output", tmp_path / "same", "--json")
    assert json.loads(done.stdout) == json.loads(before.stdout)
    assert {row["status"] for row in json.loads(done.stdout)} == {"ok"}


def apart(site) -> None:  # type: ignore[no-untyped-def]
    """The FLAIR of sub-02 by a qform that is 30 degrees off its sform."""
    image = nib.load(site.image("sub-02", "FLAIR"))
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(np.pi / 6), -0.5], [0.5, np.cos(np.pi / 6)]]
    image.set_qform(turn @ image.affine, code=1)
    nib.save(image, site.image("sub-02", "FLAIR"))


def no_head(site) -> None:  # type: ignore[no-untyped-def]
    """Voxel sizes of the head of sub-02 that are of other units."""
    for contrast in ("T1w", "FLAIR"):
        site.save(site.image("sub-02", contrast), site.head(contrast), np.diag([2.0, 2.0, 2.0, 1.0]))


@pytest.mark.parametrize(
    ("spoil", "text"),
    [(apart, "FLAIR: sform and qform differ by up to 110"), (no_head, "T1w: about 0.04 l of head or brain")],
)
def test_what_cannot_be_right_is_refused_unless_forced(spoil, text: str, site, model: Path, tmp_path: Path) -> None:
    spoil(site)
    command = ["predict", "--model", model, "--input", site.root, "--output", tmp_path / "out"]
    refused = run_main(main, *command)
    assert refused.returncode == 2
    assert f"sub-02 n/a: left out: {text}" in refused.stderr
    assert "--force" in refused.stderr
    assert not (tmp_path / "out" / "sub-02").exists()
    table = read_table(tmp_path / "out" / "lesions.tsv")
    assert [row["status"] == "ok" for row in table] == [True, False, True]
    forced = run_main(main, *command, "--force")
    assert forced.returncode == 0, forced.stderr
    assert text in " ".join(forced.stdout.split())  # on the screen beside the figures
    as_json = json.loads(run_main(main, *command, "--force", "--json").stdout)
    assert [any(text in warning for warning in row["warnings"]) for row in as_json] == [False, True, False]
    table = read_table(tmp_path / "out" / "lesions.tsv")
    assert [row["status"] for row in table] == ["ok"] * 3
    assert [text in row["warnings"] for row in table] == [False, True, False]
    assert table[0]["warnings"] == "n/a"


def test_every_warning_of_a_case_stands_in_the_table(site, model: Path, tmp_path: Path) -> None:
    fine = np.diag([3.0, 6.0, 6.0, 1.0])
    site.save(site.image("sub-01", "T1w"), site.head("fine", (48, 28, 20)), fine)
    site.image("sub-03", "T1w").with_name("sub-03_run-2_T1w.nii.gz").write_bytes(b"")
    done = run_main(main, "predict", "--model", model, "--input", site.root, "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    warnings = [row["warnings"] for row in read_table(tmp_path / "out" / "lesions.tsv")]
    assert "FLAIR is on another grid than T1w" in warnings[0]
    assert warnings[1] == "n/a"
    assert "2 files for T1w" in warnings[2]


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


@pytest.mark.parametrize(
    ("text", "arguments", "expected"),
    [
        ("", [], "expected --input with a BIDS folder, or SITE.yaml"),
        ("data: [one, two]", ["SITE"], "site a has 2 BIDS folders; name one with --input"),
        ("device: cuda:9", ["SITE"], "site a: device: cuda:9: "),
        ("", ["SITE", "--device", "cuda:9"], "--device cuda:9: "),
        ("", ["SITE", "--device", "gpu"], "--device gpu: expected auto, cpu, mps, cuda, cuda:N"),
    ],
)
def test_what_is_missing_is_named(
    text: str, arguments: list[str], expected: str, site_file: Path, model: Path, tmp_path: Path
) -> None:
    key = text.partition(":")[0]
    lines = [line if not (key and line.startswith(f"{key}:")) else text for line in site_file.read_text().splitlines()]
    site_file.write_text("\n".join(lines) + "\n")
    given = [site_file if word == "SITE" else word for word in arguments]
    done = run_main(main, "predict", *given, "--model", model, "--output", tmp_path / "out")
    assert done.returncode == 2
    assert expected in done.stderr
    assert not (tmp_path / "out").exists()


def test_models_of_the_approved_kits_authority_alone(
    site_file: Path, model: Path, tmp_path: Path, tiny_study: StudyConfig
) -> None:
    study = init_study(tmp_path / "study", ServerConfig(hosts=("localhost",)))
    take_over(add_site(study, "a", site_file.parent / "site.key.pub"), load_site(site_file))
    command = ["predict", site_file, "--output", tmp_path / "out", "--json", "--model"]
    refused = run_main(main, *command, model)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "is not signed" in refused.stderr
    assert "--authority" in refused.stderr
    weights = get_weights(build_network(tiny_study))
    provenance = Provenance(rounds_completed=1, sites={})
    save_model(tmp_path / "signed", tiny_study, weights, provenance, signer=model_signer(study))
    done = run_main(main, *command, tmp_path / "signed")
    assert done.returncode == 0, done.stderr
    assert "the authority is the one you named" in done.stderr


def test_an_input_that_is_no_folder_is_named_as_the_option(site, model: Path, tmp_path: Path) -> None:
    for given, text in (
        (tmp_path / "nowhere", "no such folder"),
        (site.image("sub-01", "T1w"), "a file, not a folder; images are given with --image"),
    ):
        done = run_main(main, "predict", "--model", model, "--input", given, "--output", tmp_path / "out")
        assert (done.returncode, done.stderr.replace("\n", "")) == (2, f"--input {given}: {text}")
    assert not (tmp_path / "out").exists()


def test_folders_that_are_no_subject_are_said_whatever_is_quiet(site, model: Path, tmp_path: Path) -> None:
    (site.root / "sub-0 4" / "anat").mkdir(parents=True)
    command = ["predict", "--model", model, "--input", site.root, "--output", tmp_path / "out", "--quiet"]
    assert "passed over, not named like a subject: sub-0 4" in " ".join(run_main(main, *command).stderr.split())
    assert run_main(main, *command, "--subject", "01").stderr == ""


def test_several_models_are_one_command(site_file: Path, model: Path, tiny_study: StudyConfig, tmp_path: Path) -> None:
    other = tiny_study.model_copy(update={"seed": 1})
    weights = get_weights(build_network(other))
    save_model(tmp_path / "other", other, weights, Provenance(rounds_completed=1, sites={}))
    several = ("predict", site_file, "--model", model, "--model", tmp_path / "other", "-o", tmp_path / "out")
    done = run_main(main, *several)
    assert done.returncode == 0, done.stderr
    assert "Mean of 2 models: the figures of their studies are of each alone" in done.stderr
    twice = run_main(main, "predict", site_file, "--model", model, "--model", model, "-o", tmp_path / "out")
    assert (twice.returncode, len(twice.stderr.splitlines())) == (2, 1)
