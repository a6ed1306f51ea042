"""Each side's installation does what it is for, without what only another's brings."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from msfl_client.site.keys import make_key
from msfl_server.cli.research.command import PACKAGES
from tests.installation import NOT_AT_A_SITE, NOT_LOADED_AT_A_COORDINATOR, lacking
from tests.test_layout import REPOSITORY, imported

RUN = """
import json, sys
{first}
from tests.commands import run_main
from msfl_{side}.cli.main import main
for line in json.loads(sys.stdin.read()):
    done = run_main(main, *line)
    print(json.dumps([done.returncode, done.stdout, done.stderr]))
"""


def run_lacking(names, side, *lines, first=""):
    """Commands of one side in a process that lacks modules: exit code and both streams of each."""
    program = lacking(names) + RUN.format(side=side, first=first)
    done = subprocess.run(
        [sys.executable, "-c", program], input=json.dumps(lines), capture_output=True, text=True, cwd=REPOSITORY
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def packages_of(*folders):
    """Top-level packages that are imported in folders."""
    found = (imported(path) for folder in folders for path in (REPOSITORY / folder).rglob("*.py"))
    return set().union(*found) - set(sys.stdlib_module_names)


def test_commands_of_research_name_all_that_a_coordinators_installation_lacks() -> None:
    coordinator = [
        str(folder.relative_to(REPOSITORY))
        for folder in (REPOSITORY / "server" / "msfl_server").iterdir()
        if folder.is_dir() and folder.name != "research"
    ]
    needed = packages_of("client", "server/msfl_server/research") - packages_of("common", *coordinator)
    needed -= {"msfl_client", "PIL", "pandas", "pathspec"}  # with Matplotlib, and of every installation
    assert set(PACKAGES) == needed - {"ray"}  # an extra of its own


@pytest.mark.slow
def test_a_coordinator_needs_nothing_of_a_sites_or_of_research(tmp_path) -> None:
    make_key(tmp_path / "site.key", "site-a")
    study = str(tmp_path / "study")
    lines = [
        ["--help"], ["simulate", "--help"], ["init", study, "--host", "localhost", "--json"],
        ["add-site", study, "site-a", "--public-key", str(tmp_path / "site.key.pub"), "--json"],
        ["ledgers", study, "--json"], ["renew-kits", study, "--json"], ["renew-certificate", study, "--json"],
        ["remove-site", study, "site-a", "--json"], ["stop", study],
    ]  # fmt: skip
    found = run_lacking(
        NOT_LOADED_AT_A_COORDINATOR,
        "server",
        *lines,
        ["status", study, "--json"],
        ["report", study],
        first="import msfl_server.flower.server_process",
    )
    assert [(code, err) for code, _, err in found[: len(lines) - 1]] == [(0, "")] * (len(lines) - 1)
    assert found[-3][0] == 0
    assert found[-2][0] == 1  # not running
    assert found[-1][0] == 2
    assert "the study has no run yet" in found[-1][2]


@pytest.mark.slow
def test_research_says_what_to_install(tmp_path) -> None:
    folders = ["study.yaml", "--out", "out"]
    lines = [
        ["make-cohort", str(tmp_path / "cohort")], ["simulate", *folders, "--cohort", "cohort"],
        ["cross-validate", *folders, "--cohort", "cohort", "--folds", "2"],
        ["pipelines", *folders, "--table", "table.tsv"], ["audit", *folders, "--cohort", "cohort"],
    ]  # fmt: skip
    found = run_lacking(NOT_LOADED_AT_A_COORDINATOR, "server", *lines)
    for line, (code, out, err) in zip(lines, found, strict=True):
        assert (code, out, len(err.splitlines())) == (2, "", 1)
        assert err.startswith(f"{line[0]} needs SimpleITK, ")
        assert "`pip install 'msfl[sim]'`" in err


@pytest.mark.slow
def test_a_site_needs_nothing_of_the_coordinators(tmp_path) -> None:
    site, data = str(tmp_path / "site" / "site.yaml"), tmp_path / "bids"
    data.mkdir()
    (tmp_path / "passphrase").write_text("correct horse battery staple\n")
    (tmp_path / "passphrase").chmod(0o600)
    (data / "dataset_description.json").write_text('{"Name": "none", "BIDSVersion": "1.8.0"}')
    lines = [
        ["--help"], ["init", str(tmp_path / "site"), "--name", "site-a", "--data", str(data)],
        ["make-officer-key", str(tmp_path / "officer.key"), "--passphrase-file", str(tmp_path / "passphrase")],
        ["ledger", site], ["ledger", site, "--report", str(tmp_path / "left.html")],
    ]  # fmt: skip
    found = run_lacking((*NOT_AT_A_SITE, "torch", "monai"), "client", *lines)  # PyTorch takes seconds to load
    assert [code for code, *_ in found] == [0] * len(lines), found
    [(code, out, err)] = run_lacking(NOT_AT_A_SITE, "client", ["check", site])
    assert code in (1, 2)
    assert "is not installed" not in out + err


@pytest.mark.slow
def test_the_other_sides_commands_say_what_to_install(tmp_path) -> None:
    study = str(tmp_path / "study")
    [site] = run_lacking(PACKAGES, "client", ["make-officer-key", str(tmp_path / "officer.key")])
    made, coordinator = run_lacking(("mlflow",), "server", ["init", study, "--host", "localhost"], ["start", study])
    assert made[0] == 0
    for (code, _, err), missing in ((site, "pyrage"), (coordinator, "mlflow")):
        assert (code, len(err.splitlines())) == (2, 1)
        assert err.startswith(f"{missing} is not installed; `pip install 'msfl[client]'` brings what a site needs")
