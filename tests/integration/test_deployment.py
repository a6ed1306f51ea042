"""A study among real processes over TLS: it ends with the very weights of the simulation, whoever is killed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import BidsSite
from tests.integration.deployment import Deployment, deployment, wait_for

from msfl_client.ledger import verify
from msfl_common.config import Policy, SiteConfig, StudyConfig
from msfl_server.run_folder import RunSetup
from msfl_server.run_simulated import run_simulated

SITES = ("site-a", "site-b", "site-c")
ROUNDS = 5

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A BIDS folder for each site."""
    base = tmp_path_factory.mktemp("data")
    folders = {}
    for name in SITES:
        site = BidsSite(base / name)
        site.root.mkdir()
        for number in range(1, 4):
            site.add(f"sub-{name[-1]}{number}")
        folders[name] = site.root
    return folders


@pytest.fixture(scope="module")
def study(tiny: StudyConfig) -> StudyConfig:
    """Five short rounds that wait for every site."""
    rounds = tiny.rounds.model_copy(update={"num_rounds": ROUNDS, "quorum": 2, "patience_s": 60.0})
    return tiny.model_copy(update={"name": "real", "rounds": rounds})


@pytest.fixture(scope="module")
def expected(data: dict[str, Path], study: StudyConfig, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The model of the same study, simulated in this process."""
    out = tmp_path_factory.mktemp("simulated")
    sites = tuple(
        SiteConfig(name=name, data=(folder,), state=out / name, device="cpu", policy=Policy(min_cases=1))
        for name, folder in data.items()
    )
    run_simulated(RunSetup(study=study, sites=sites), out, "inprocess", None)
    return (out / "model" / "model.safetensors").read_bytes()


@pytest.fixture
def federation(tmp_path: Path, study: StudyConfig, data: dict[str, Path]) -> Iterator[Deployment]:
    """The same study, deployed."""
    with deployment(tmp_path / "federation", study, data) as made:
        yield made


def model_of(federation: Deployment) -> bytes:
    """The finished model."""
    return (federation.study.run / "model" / "model.safetensors").read_bytes()


def test_a_real_federation_ends_with_the_weights_of_the_simulation(federation: Deployment, expected: bytes) -> None:
    federation.start_sites(*SITES)
    federation.start_server()
    assert federation.wait_for_end() == 0
    assert model_of(federation) == expected
    summary = json.loads((federation.study.run / "summary.json").read_text())
    assert summary["rounds_completed"] == ROUNDS
    assert [site["name"] for site in summary["sites"]] == list(SITES)
    for name in SITES:
        assert verify(federation.site(name) / "state" / "ledger.jsonl") == 1 + 2 * ROUNDS
        wait_for("the site to notice", lambda name=name: "offline" in status_of(federation, name))
        assert federation.stop(name) == 130
    assert federation.orphans() == []


def status_of(federation: Deployment, name: str) -> str:
    """What the site's process says of itself."""
    return (federation.site(name) / "state" / "status.json").read_text()


def test_kills_cost_no_round_and_no_bit(federation: Deployment, expected: bytes) -> None:
    federation.start_sites(*SITES)
    federation.start_server()
    federation.wait_for_round(1)
    federation.find("federation_node", "site-a").kill()
    federation.wait_for_round(2)
    federation.find("federation_run").kill()
    federation.wait_for_round(3)
    federation.find("federation_superlink").kill()
    federation.wait_for_round(4)
    federation.kill_tree("server")
    wait_for("no process left at the server", lambda: not [one for one in federation.orphans() if "msfl_server" in one])
    federation.start_server()
    assert federation.wait_for_end() == 0
    assert model_of(federation) == expected
