"""A study among three tiny sites, the model that it must end with however it is run, and `predict` as a command."""

from __future__ import annotations

import csv
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.conftest import BidsSite

from msfl_client.cli.main import main
from msfl_common.config.site import Policy, SiteConfig
from msfl_common.config.study import StudyConfig
from msfl_server.research.simulation.folder import RunSetup
from msfl_server.research.simulation.run import run_simulated

SITES = ("site-a", "site-b", "site-c")
ROUNDS = 5
Command = Callable[..., tuple[int, str, str]]


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
def simulated(
    site_data: dict[str, Path], real_study: StudyConfig, tmp_path_factory: pytest.TempPathFactory, ready_store: Path
) -> Path:
    """The run of the same study, simulated in this process."""
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
    return out


@pytest.fixture(scope="session")
def expected(simulated: Path) -> bytes:
    """Its model."""
    return (simulated / "model" / "model.safetensors").read_bytes()


@pytest.fixture
def predict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The real command in this process: exit code, stdout and stderr; it writes to `tmp_path / "out"`."""

    def run(model: Path, source: Path, *more: str) -> tuple[int, str, str]:
        command = ["msfl-client", "predict", "--model", model, "--input", source, "--output", tmp_path / "out", *more]
        monkeypatch.setattr(sys, "argv", list(map(str, command)))
        monkeypatch.setenv("COLUMNS", "160")
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr()
        return int(ended.value.code or 0), told.out, told.err

    return run


def rows_of(tmp_path: Path) -> list[dict[str, str]]:
    with (tmp_path / "out" / "predictions.tsv").open(newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))
