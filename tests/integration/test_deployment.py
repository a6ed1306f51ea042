"""A study among real processes over TLS: it ends with the very weights of the simulation, whoever is killed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.commands import run_main
from tests.installation import NOT_AT_A_COORDINATOR, NOT_AT_A_SITE, hooked_installation, lacking
from tests.integration.conftest import ROUNDS, SITES
from tests.integration.deployment import Deployment, deployment, wait_for

from msfl_client.egress.ledger import read, verify
from msfl_common.config.study import StudyConfig
from msfl_common.models.evaluated_model import evaluation_of
from msfl_common.models.model_signature import check_origin, fingerprint_of
from msfl_server.cli.main import main as server_main
from msfl_server.results.summary import read_summary

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def federation(
    tmp_path: Path, real_study: StudyConfig, site_data: dict[str, Path], ready_store: Path
) -> Iterator[Deployment]:
    """The same study, deployed."""
    with deployment(tmp_path / "federation", real_study, site_data, store=ready_store) as made:
        yield made


def model_of(federation: Deployment) -> bytes:
    """The finished model."""
    return (federation.study.run / "model" / "model.safetensors").read_bytes()


def test_a_real_federation_ends_with_the_weights_of_the_simulation(
    federation: Deployment, expected: bytes, tmp_path: Path
) -> None:
    """Each side is installed without what only the other's installation, or a researcher's, brings."""
    site = hooked_installation(tmp_path / "site", lacking(NOT_AT_A_SITE))
    coordinator = hooked_installation(tmp_path / "coordinator", lacking(NOT_AT_A_COORDINATOR))
    federation.bin |= dict.fromkeys(SITES, site) | {"server": coordinator}
    federation.start_sites(*SITES)
    federation.start_server()
    assert federation.wait_for_end() == 0
    assert model_of(federation) == expected
    authority = fingerprint_of(str(federation.study.ca_certificate))
    assert check_origin(federation.study.run / "model", authority).is_known
    summary = json.loads((federation.study.run / "summary.json").read_text())
    assert summary["rounds_completed"] == ROUNDS
    said = (federation.base / "server.log").read_text().splitlines()
    assert [line.split()[1] for line in said if line.startswith("round ") and f"of {len(SITES)} sites" in line] == [
        str(number) for number in range(1, ROUNDS + 1)
    ]
    assert [site["name"] for site in summary["sites"]] == list(SITES)
    for name in SITES:
        assert verify(federation.site(name) / "state" / "ledger.jsonl") == 1 + 2 * ROUNDS
        wait_for("the site to notice", lambda name=name: "offline" in status_of(federation, name))
        assert json.loads(status_of(federation, name))["is_last"], "the study is finished, and the site knows"
        assert federation.stop(name) == 130
    assert federation.orphans() == []
    done = run_main(server_main, "status", federation.study.root)
    assert (done.returncode, "finished" in done.stdout) == (0, True)


def status_of(federation: Deployment, name: str) -> str:
    """What the site's process says of itself."""
    return (federation.site(name) / "state" / "status.json").read_text()


@pytest.mark.long
def test_a_model_is_measured_over_tls_as_it_was_at_the_end_of_its_training(
    simulated: Path, site_data: dict[str, Path], ready_store: Path, tmp_path: Path
) -> None:
    study = evaluation_of(simulated / "model", "measured")
    with deployment(tmp_path / "federation", study, site_data, store=ready_store) as made:
        settings = made.study.server_file.read_text()
        made.study.server_file.write_text(settings.replace("model: null", f"model: {simulated / 'model'}"))
        looked = run_main(server_main, "check", made.study.root)
        assert (looked.returncode, "is the model; measured on patients" in looked.stdout) == (0, True)
        made.start_sites(*SITES)
        made.start_server()
        assert made.wait_for_end() == 0
        summary, before = (read_summary(out) for out in (made.study.run, simulated))
        assert summary.evaluated is not None
        assert summary.evaluated.trained_at == SITES
        assert summary.metrics == before.metrics
        assert model_of(made) == (simulated / "model" / "model.safetensors").read_bytes()
        for name in SITES:
            kinds = [line.kind for line in read(made.site(name) / "state" / "ledger.jsonl")]
            assert kinds == ["node_facts", "validation_metrics"]
        done = run_main(server_main, "status", made.study.root)
        assert (done.returncode, "finished, the model is measured" in " ".join(done.stdout.split())) == (0, True)


@pytest.mark.long
def test_kills_cost_no_round_and_no_bit(federation: Deployment, expected: bytes) -> None:
    federation.start_sites(*SITES)
    federation.start_server()
    federation.wait_for_round(1)
    federation.find("connection.node", "site-a").kill()
    federation.wait_for_round(2)
    federation.find("flower.server_process").kill()
    federation.wait_for_round(3)
    federation.find("flower.superlink").kill()
    federation.wait_for_round(4)
    federation.kill_tree("server")
    wait_for("no process left at the server", lambda: not [one for one in federation.orphans() if "msfl_server" in one])
    federation.start_server()
    assert federation.wait_for_end() == 0
    assert model_of(federation) == expected
