"""`msfl-client predict` with a site's file, and without."""

from __future__ import annotations

import json
from pathlib import Path

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
