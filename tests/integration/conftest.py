"""A study among three tiny sites, and the model that it must end with however it is run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from tests.conftest import BidsSite

from msfl_common.config.site import Policy, SiteConfig
from msfl_common.config.study import StudyConfig
from msfl_server.research.simulation.folder import RunSetup
from msfl_server.research.simulation.run import run_simulated

SITES = ("site-a", "site-b", "site-c")
ROUNDS = 5


@pytest.fixture(scope="session")
def site_data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
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


@pytest.fixture(scope="session")
def real_study(tiny: StudyConfig) -> StudyConfig:
    """Five short rounds that wait for every site."""
    rounds = tiny.rounds.model_copy(update={"num_rounds": ROUNDS, "quorum": 2, "patience_s": 60.0})
    return tiny.model_copy(update={"name": "real", "rounds": rounds})


@pytest.fixture(scope="session")
def expected(
    site_data: dict[str, Path], real_study: StudyConfig, tmp_path_factory: pytest.TempPathFactory, ready_store: Path
) -> bytes:
    """The model of the same study, simulated in this process."""
    out = tmp_path_factory.mktemp("simulated")
    sites = tuple(
        SiteConfig(name=name, data=(folder,), state=out / name, device="cpu", policy=Policy(min_patients=1))
        for name, folder in site_data.items()
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the deployed sites: sums of two threads round differently
    shutil.copy(ready_store, out)
    run_simulated(RunSetup(study=real_study, sites=sites), out, "inprocess", None)
    torch.set_num_threads(threads)
    return (out / "model" / "model.safetensors").read_bytes()
