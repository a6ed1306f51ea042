"""Harmonization as people meet it: a simulated run, the same among real processes, and the model used afterwards."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tests.commands import run_main
from tests.integration.deployment import Deployment, deployment

from msfl_client.cli.main import main as client_main
from msfl_client.egress.ledger import read, verify
from msfl_client.features.table import read_features_table
from msfl_common.config.study import load_study
from msfl_common.models.model_folder import read_reference
from msfl_server.cli.main import main as server_main
from msfl_server.research.simulated_cohort import make_cohort

SITES = ("site-a", "site-b", "site-c")
MAINS = {"msfl-server": server_main, "msfl-client": client_main}
STUDY = """\
name: harmonized
min_patients: 1
inputs: {spacing_mm: 4.0}
network: {kind: unet, channels: [4, 8]}
training: {steps_per_round: 2, patch_voxels: 16}
validation: {fraction: 0.2}
rounds: {num_rounds: 1, quorum: 3}
harmonization: {method: combat, min_cases: 3}
"""

pytestmark = [pytest.mark.long, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three simulated sites of six patients, and the study."""
    folder = tmp_path_factory.mktemp("harmonized")
    make_cohort(folder / "cohort", num_sites=3, cases_per_site=6, seed=0, spacing_mm=4.0, num_workers=1)
    (folder / "study.yaml").write_text(STUDY)
    return folder


def run(*command: object) -> str:
    """A command of ours, which must succeed; what it printed."""
    done = run_main(MAINS[str(command[0])], *command[1:])
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def simulated(base: Path) -> Path:
    """The run's folder."""
    run("msfl-server", "simulate", base / "study.yaml", "--cohort", base / "cohort", "--out", base / "run")
    return base / "run"


def test_a_simulated_run_reports_what_harmonization_changed(simulated: Path) -> None:
    reference = read_reference(simulated / "harmonization.json")
    assert reference.num_sites == 3
    assert (simulated / "model" / "harmonization.json").read_bytes() == (simulated / "harmonization.json").read_bytes()
    page = (simulated / "report.html").read_text()
    assert "Harmonization of features" in page
    assert reference.version in page
    assert "Telling the scanner of unseen patients" in page
    for name in SITES:
        table = read_features_table(simulated / "sites" / name / "harmonization" / "features.tsv")
        assert table.harmonized_to == reference.version
        assert len(table.rows) == 12  # two sessions each
        assert {line.kind for line in read(simulated / "sites" / name / "ledger.jsonl")} >= {"harmonization_sums"}


def test_a_resumed_run_keeps_its_reference(simulated: Path) -> None:
    before = (simulated / "harmonization.json").read_bytes()
    run("msfl-server", "simulate", "--resume", simulated)
    assert (simulated / "harmonization.json").read_bytes() == before


def test_the_model_brings_new_cases_to_its_reference(simulated: Path, base: Path) -> None:
    said = run(
        "msfl-client", "predict", "--model", simulated / "model", "--input", base / "cohort" / "site-b",
        "--output", base / "predicted",
    )  # fmt: skip
    version = read_reference(simulated / "model" / "harmonization.json").version
    assert f"12 brought to reference {version}" in said
    raw, harmonized = (
        read_features_table(base / "predicted" / folder / "features.tsv") for folder in ("", "harmonization")
    )
    assert (raw.harmonized_to, harmonized.harmonized_to) == (None, version)
    assert raw.rows[0].features["bpf"] != harmonized.rows[0].features["bpf"]


@pytest.fixture
def federation(base: Path, tmp_path: Path, simulated: Path, ready_store: Path) -> Iterator[Deployment]:
    """The same study among real processes, whose sites allow their sums; two visits are left to be measured."""
    folders = {name: base / "cohort" / name for name in SITES}
    with deployment(tmp_path / "federation", load_study(base / "study.yaml"), folders, store=ready_store) as made:
        for name in SITES:
            path = made.site(name) / "site.yaml"
            content = yaml.safe_load(path.read_text())
            content["policy"]["allow"] = ["model_update", "validation_metrics", "harmonization_sums", "node_facts"]
            path.write_text(yaml.safe_dump(content))
            shutil.copytree(simulated / "sites" / name / "cache", made.site(name) / "state" / "cache")
        for slot in sorted((made.site("site-a") / "state" / "cache" / "features").iterdir())[:2]:
            slot.unlink()
        yield made


def test_real_sites_come_to_the_same_reference(federation: Deployment, simulated: Path) -> None:
    federation.start_sites(*SITES)
    federation.start_server()
    assert federation.wait_for_end() == 0, federation.logs()
    ours, theirs = (
        json.loads((folder / "harmonization.json").read_text()) for folder in (federation.study.run, simulated)
    )
    assert ours["settings"] == theirs["settings"]
    assert ours["grand_mean"] == pytest.approx(theirs["grand_mean"], rel=1e-9)
    assert ours["pooled_variance"] == pytest.approx(theirs["pooled_variance"], rel=1e-9)
    page = (federation.study.run / "report.html").read_text()
    assert "ComBat over" in page
    assert "Telling the scanner" not in page  # no case is there to tell it from
    for name in SITES:
        state = federation.site(name) / "state"
        assert verify(state / "ledger.jsonl") == 6  # facts, two sums, reference taken, update, metrics
        assert len(read_features_table(state / "harmonization" / "features.tsv").rows) == 12
    told = b"".join(path.read_bytes() for path in federation.study.root.rglob("*") if path.is_file())
    assert b"sub-0" not in told
    assert os.fsencode(str(federation.site("site-a"))) not in told
