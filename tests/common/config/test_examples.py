"""Example files for who installed the package: in it, the same as the repository's, and never written over a file."""

from __future__ import annotations

from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder
from tests.commands import run_main

from msfl_client.cli.main import main as client
from msfl_common.config.examples import EXAMPLES, example_text
from msfl_common.config.site import Policy, load_site
from msfl_common.config.study import load_study
from msfl_server.cli.main import main as server

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_the_repositorys(name: str) -> None:
    assert example_text(name) == (ROOT / "site_configs" / EXAMPLES[name].source).read_text(encoding="utf-8")


def test_a_wheel_brings_each_and_no_other() -> None:
    packed = [file.distribution_path for file in WheelBuilder(str(ROOT)).recurse_included_files()]
    found = {Path(path).stem for path in packed if path.startswith("msfl_common/config/example_files/")}
    assert found == set(EXAMPLES)


def test_both_programs_write_them_and_keep_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_main(server, "example", "progression").returncode == 0
    assert load_study(tmp_path / "study.yaml").classification is not None
    assert run_main(client, "example", "site", "-o", "mine.yaml").returncode == 0
    assert load_site(tmp_path / "mine.yaml").name == "hospital-a"
    shown = run_main(server, "example", "study", "-o", "-")
    assert (shown.stdout, (tmp_path / "-").exists()) == (example_text("study"), False)
    again = run_main(server, "example", "study")
    assert (again.returncode, again.stderr.split(":")[0]) == (2, "study.yaml")
    assert "did you mean study?" in run_main(server, "example", "studi").stderr
    assert [line.split(":")[0] for line in run_main(server, "example").stdout.splitlines()] == list(EXAMPLES)


def test_a_study_folder_begins_with_an_example(tmp_path: Path) -> None:
    done = run_main(server, "init", tmp_path / "study", "--host", "localhost", "--template", "progression")
    assert done.returncode == 0
    assert (tmp_path / "study" / "study.yaml").read_text() == example_text("progression")
    both = run_main(
        server,
        "init",
        tmp_path / "new",
        "--host",
        "localhost",
        "--template",
        "demo",
        "--study",
        tmp_path / "study.yaml",
    )
    assert (both.returncode, both.stderr) == (2, "--template and --study: leave one out\n")
    site = run_main(server, "init", tmp_path / "new", "--host", "localhost", "--template", "site")
    assert (site.returncode, "no such template: site" in site.stderr) == (2, True)
    unnamed = run_main(server, "init", tmp_path / "new", "--host", "localhost", "--template", "")
    assert (unnamed.returncode, (tmp_path / "new").exists()) == (2, False)
    assert not (tmp_path / "new").exists()


def test_the_example_of_a_site_has_the_policy_that_a_site_has_anyway(tmp_path: Path) -> None:
    """It says that it does: a hospital that copies it takes part in studies under masks."""
    path = tmp_path / "site.yaml"
    path.write_text(example_text("site"), encoding="utf-8")
    assert load_site(path).policy == Policy()
