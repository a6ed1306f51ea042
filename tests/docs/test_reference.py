"""The documentation site: it builds, no link is dead, and nothing is missing from what is made of the code."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from msfl_common.config.study import StudyConfig
from tests.docs.pages import PROGRAMS, REPOSITORY, subcommands

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; a dead link or anchor, or a page that is in no menu, fails the build."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_site_takes_nothing_from_a_network(site: Path) -> None:
    loads = re.compile(r"""<(?:script|img|iframe)\b[^>]*\ssrc="?(https?:|//)|<link\b[^>]*href="?(https?:|//)""")
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    assert [page.name for page in pages if loads.search(page.read_text())] == []


def test_the_search_works_from_a_folder(site: Path) -> None:
    assert (site / "search" / "search_index.js").is_file()
    assert 'src="javascripts/iframe-worker.js"' in (site / "index.html").read_text()


def test_every_setting_and_command_has_its_place(site: Path) -> None:
    study = (site / "reference" / "study.html").read_text()
    assert [key for key in StudyConfig.model_fields if f"<code>{key}</code>" not in study] == []
    assert 'id="classification-model-logistic"' in study
    for program, app in PROGRAMS.items():
        page = (site / "reference" / f"{program}.html").read_text()
        assert [name for name in subcommands(app) if f'id="{name}"' not in page] == []


def test_pages_for_the_repository_are_pages_here(site: Path) -> None:
    assert 'id="residual-risks"' in (site / "deploy" / "hospital-it.html").read_text()
    assert (site / "deploy" / "index.html").is_file()
