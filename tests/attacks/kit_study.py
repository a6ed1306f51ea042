"""A study with one site, as attacks by way of the joining kit find it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from msfl_client.cli.main import main
from msfl_client.site.folder import init_site
from msfl_common.config.site import SiteConfig, load_site
from msfl_server.study.folder import init_study
from msfl_server.study.paths import StudyFolder
from msfl_server.study.server_config import ServerConfig
from msfl_server.study.sites import add_site
from tests.commands import run_main

SERVER = ServerConfig(hosts=("localhost",))


@pytest.fixture
def study(tmp_path: Path) -> StudyFolder:
    return init_study(tmp_path / "pilot", SERVER)


@pytest.fixture
def site_file(study: StudyFolder, tmp_path: Path) -> Path:
    """A site that has handed its key over, and no kit yet."""
    (tmp_path / "bids").mkdir()
    made = init_site(tmp_path / "site", "a", tmp_path / "bids")
    add_site(study, "a", made.public_key_file)
    return made.site_file


@pytest.fixture
def site(study: StudyFolder, site_file: Path) -> SiteConfig:
    """The same, its kit taken over and approved."""
    assert join(study.kit_archive("a"), site_file, "--yes").returncode == 0
    return load_site(site_file)


def join(archive: Path, site_file: Path, *more: object) -> subprocess.CompletedProcess[str]:
    return run_main(main, "join", archive, site_file, *more)


def approve(site_file: Path, *more: object) -> subprocess.CompletedProcess[str]:
    return run_main(main, "approve", site_file, *more)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def refused(done: subprocess.CompletedProcess[str], text: str) -> None:
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stdout + done.stderr
    assert text in done.stderr
