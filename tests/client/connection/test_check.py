"""The rows of the check that need no server; tests/integration/test_join.py has the others."""

from __future__ import annotations

import shutil
from collections import namedtuple
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rich.console import Console
from tests.commands import run_main
from tests.kits import changed, put, take_over

from msfl_client.cli.connection_view import print_connection
from msfl_client.cli.main import main
from msfl_client.connection import check
from msfl_client.connection.check import Row, check_connection
from msfl_client.site.keys import make_key
from msfl_client.site.kit_approval import what_waits
from msfl_common.config.site import Policy, SiteConfig
from msfl_common.trust.kit import STUDY_FILE, read_kit
from msfl_server.study.certificates import issue_server_certificate, make_authority
from msfl_server.study.folder import init_study
from msfl_server.study.paths import StudyFolder
from msfl_server.study.server_config import ServerConfig
from msfl_server.study.sites import add_site


@pytest.fixture
def study(tmp_path: Path) -> StudyFolder:
    return init_study(tmp_path / "pilot", ServerConfig(hosts=("server.invalid",)))


@pytest.fixture
def site(study: StudyFolder, tmp_path: Path) -> SiteConfig:
    """A site with its key and kit; its server's name does not exist."""
    make_key(tmp_path / "site.key", "a")
    archive = add_site(study, "a", tmp_path / "site.key.pub")
    site = SiteConfig(
        name="a",
        data=(tmp_path,),
        state=tmp_path / "state",
        device="cpu",
        kit=tmp_path / "kit",
        key=tmp_path / "site.key",
    )
    take_over(archive, site)
    return site


def row(site: SiteConfig, name: str, /, **changes: object) -> Row:
    return next(found for found in check_connection(site.model_copy(update=changes)) if found.name == name)


@pytest.mark.slow
def test_device(site: SiteConfig) -> None:
    good = row(site, "device")
    assert good.level == "pass"
    assert good.text.startswith("CPU, ")
    assert int(good.text.split(": ")[1].split()[0]) > 0
    bad = row(site, "device", device="cuda:63")
    assert (bad.level, bad.fix) == ("fail", "correct `device:` in the site file, or set it to auto")
    assert "cuda:63" in bad.text


def test_disk(site: SiteConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", ["free"])
    for free_gb, level in ((11, "pass"), (9, "warn")):
        monkeypatch.setattr(check.shutil, "disk_usage", lambda _, free=free_gb: usage(free * 10**9))
        found = row(site, "disk", state=site.state / "new" / "state")
        assert (found.level, found.text) == (level, f"{free_gb} GB free for {site.state}/new/state")
    assert not (site.state / "new").exists()


@pytest.mark.slow
def test_a_state_folder_of_an_earlier_version_that_others_may_enter(site: SiteConfig) -> None:
    """`check` and `status` give the one command, before `start` has to."""
    site.state.chmod(0o755)
    found = row(site, "disk")
    assert (found.level, found.fix) == ("fail", f"run `chmod 700 {site.state}`")
    assert what_waits(site).endswith(f"run `chmod 700 {site.state}`")
    site.state.chmod(0o700)
    assert row(site, "disk").level != "fail"
    assert what_waits(site) == ""


@pytest.mark.slow
def test_a_policy_of_an_earlier_version_says_how_receipts_come(site: SiteConfig) -> None:
    assert not [found for found in check_connection(site) if found.name == "receipts"]
    found = row(site, "receipts", policy=Policy(allow=("model_update", "node_facts")))
    assert (found.level, found.fix) == ("warn", "add ledger_head to `allow:` of the policy")


def test_disk_under_a_file(site: SiteConfig) -> None:
    found = row(site, "disk", state=site.key / "state")
    assert (found.level, found.text) == ("fail", f"{site.key}: cannot be written")


def test_a_kit_for_another_site(site: SiteConfig) -> None:
    found = row(site, "kit", name="b")
    assert (found.level, found.text) == ("fail", f"{site.kit}: is the kit of site a, but `name:` is b")


def test_no_kit(site: SiteConfig) -> None:
    (site.state / "approved-kit.json").unlink()
    rows = check_connection(site.model_copy(update={"kit": site.kit / "nowhere"}))
    levels = {found.name: found.level for found in rows}
    assert levels["kit"] == "fail"
    assert {levels[name] for name in ("server", "clock", "authenticated", "study")} == {"skip"}


@pytest.mark.slow
def test_an_authority_that_ends_soon(study: StudyFolder, site: SiteConfig) -> None:
    authority = make_authority("pilot", datetime.now(UTC) - timedelta(days=3630))
    study.ca_certificate.write_bytes(authority.certificate_pem)
    study.server_certificate.write_bytes(issue_server_certificate(authority, ["x"]).certificate_pem)
    study.ca_key.write_bytes(authority.key_pem)
    study.public_key_file("a").unlink()
    shutil.rmtree(site.kit)
    take_over(add_site(study, "a", Path(f"{site.key}.pub")), site)
    found = row(site, "kit")
    assert (found.level, found.fix) == ("warn", "ask the coordinator for a new kit")


@pytest.mark.slow
def test_another_version_of_msfl(site: SiteConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "__version__", "9.9")
    found = row(site, "kit")
    assert found.level == "warn"
    assert "installed is 9.9" in found.text


@pytest.mark.slow
def test_study(site: SiteConfig) -> None:
    good = row(site, "study")
    assert (good.level, good.text) == ("pass", "pilot: lesion-segmentation, 10 rounds, within the policy")
    beyond = row(site, "study", policy=Policy(max_rounds=3))
    assert (beyond.level, beyond.text) == ("fail", "goes beyond this site's policy: 10 rounds, at most 3")


@pytest.mark.slow
def test_a_study_of_another_version(study: StudyFolder, site: SiteConfig) -> None:
    files = {**read_kit(site.kit).files, STUDY_FILE: b"name: pilot\ninvented: {}\n"}
    put(changed(files, study.ca_key, msfl_version="9.9"), site.kit)
    assert "install MSFL 9.9" in row(site, "kit").fix  # until it is approved, the old one stays in use
    (site.state / "approved-kit.json").unlink()
    newer = row(site, "kit")
    assert newer.level == "fail"
    assert "invented: unknown key" in newer.text


def test_the_table_names_each_row_and_its_fix() -> None:
    console = Console(width=100, record=True)
    print_connection(
        console, [Row("key", "fail", "[red]mode 0644[/red]", "run `chmod 600 [x]`"), Row("disk", "pass", "12 GB")]
    )
    lines = console.export_text()
    assert "[red]mode 0644[/red]" in lines
    assert "What to do:\n  key: run `chmod 600 [x]`" in lines


def test_the_command_looks_at_the_connection_when_asked_although_there_is_no_kit(
    site: SiteConfig, make_site, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_site("scans", ["sub-01"]).root.parent
    (folder / "lonely.yaml").write_text("name: a\ndata: scans\nstate: other\nkit: nowhere\n")
    monkeypatch.chdir(folder)
    quiet, asked = (run_main(main, "check", "lonely.yaml", *more) for more in ([], ["--connection"]))
    assert (quiet.returncode, quiet.stderr) == (0, "")
    assert "Connection and machine" not in quiet.stdout
    assert asked.returncode == 2
    assert asked.stderr == "lonely.yaml: cannot take part yet: kit; the fixes are given above\n"
    assert "no joining kit" in asked.stdout
    assert "kit: take over the coordinator's with `msfl-client join" in asked.stdout
