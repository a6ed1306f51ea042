"""A site joins a study: study folder, key, kit, and the check of its connection against a real SuperLink."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from flwr.proto.control_pb2 import ListNodesRequest
from flwr.supernode import node_auth_http_interceptor
from tests import kits
from tests.commands import run_main
from tests.integration.join_servers import (
    LikeFlower,
    NotFound,
    Proxy,
    control,
    free_port,
    good_pair,
    reaches,
    register,
    served,
    superlink,
    write_pair,
)
from tests.kits import take_over

from msfl_client.cli.main import main
from msfl_client.connection.check import Row, check_connection
from msfl_client.site.folder import init_site
from msfl_client.site.keys import make_key
from msfl_client.site.kit_approval import approve_kit
from msfl_common.config.site import SiteConfig, load_site
from msfl_common.trust.kit import CA_FILE, KIT_FILE, KIT_FILES, fingerprint, read_kit
from msfl_server.study.certificates import make_authority
from msfl_server.study.folder import init_study
from msfl_server.study.paths import StudyFolder
from msfl_server.study.server_config import ServerConfig
from msfl_server.study.sites import add_site

ROWS = ["device", "disk", "key", "kit", "server", "clock", "authenticated", "study"]


@dataclass(frozen=True)
class Joined:
    """A study whose SuperLink runs, and a site that is registered with it."""

    study: StudyFolder
    site_file: Path

    @property
    def site(self) -> SiteConfig:
        return load_site(self.site_file)


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Joined]:
    root = tmp_path_factory.mktemp("join")
    (root / "bids").mkdir()
    port = free_port()
    study = init_study(root / "pilot", ServerConfig(hosts=("localhost",), port=port))
    study.server_since.write_text("2020-01-01T00:00:00+00:00")  # for certificates of other times
    made = init_site(root / "site", "hospital-a", root / "bids")
    archive = add_site(study, "hospital-a", made.public_key_file)
    take_over(archive, load_site(made.site_file))
    with superlink(study, port):
        register(study, port, "hospital-a")
        yield Joined(study, made.site_file)


@pytest.fixture
def site(joined: Joined, tmp_path: Path) -> SiteConfig:
    """The registered site, in a copy that a test may spoil."""
    shutil.copytree(joined.site_file.parent, tmp_path / "site")
    shutil.copy(joined.study.ca_key, tmp_path / "ca.key")
    return load_site(tmp_path / "site" / "site.yaml")


def row(site: SiteConfig, name: str) -> Row:
    rows = check_connection(site)
    assert [found.name for found in rows] == ROWS
    return next(found for found in rows if found.name == name)


def point_kit(site: SiteConfig, address: str) -> None:
    kits.point_kit(site.kit.parent / "site.yaml", site.kit.parents[1] / "ca.key", address)


def test_a_site_that_did_everything_passes(joined: Joined) -> None:
    rows = check_connection(joined.site)
    assert [found.name for found in rows] == ROWS
    assert {found.name: found.text for found in rows if found.level in ("fail", "skip")} == {}
    assert {found.level for found in rows if found.name != "disk"} == {"pass"}


def test_the_check_changes_nothing_at_the_server(joined: Joined) -> None:
    assert row(joined.site, "authenticated").level == "pass"
    with control(joined.study, site_port(joined.site)) as client:
        nodes = client.ListNodes(ListNodesRequest()).nodes_info
    assert [(node.status, node.last_activated_at) for node in nodes] == [("registered", "")]


def test_unregistered_key(site: SiteConfig) -> None:
    site.key.unlink()
    (site.key.parent / "site.key.pub").unlink()
    make_key(site.key, "hospital-a")
    rows = {found.name: found for found in check_connection(site)}
    assert rows["authenticated"].level == "fail"
    assert rows["authenticated"].text == "the server does not know this site's key"
    assert "msfl-server add-site STUDY_DIR hospital-a --public-key" in rows["authenticated"].fix
    assert rows["server"].level == rows["clock"].level == "pass"


def test_key_that_others_may_read(site: SiteConfig) -> None:
    site.key.chmod(0o644)
    rows = {found.name: found for found in check_connection(site)}
    assert (rows["key"].level, rows["authenticated"].level) == ("fail", "skip")
    assert "mode 0644" in rows["key"].text
    assert rows["key"].fix == f"run `chmod 600 {site.key}`"
    assert rows["server"].level == "pass"


def test_another_authority_that_the_kit_vouches_for(site: SiteConfig) -> None:
    other = make_authority("pilot")
    (site.kit.parents[1] / "ca.key").write_bytes(other.key_pem)
    (site.kit / CA_FILE).write_bytes(other.certificate_pem)
    files = {name: (site.kit / name).read_bytes() for name in KIT_FILES}
    key = site.kit.parents[1] / "ca.key"
    kits.put(kits.changed(files, key, ca_sha256=fingerprint(other.certificate)), site.kit)
    assert row(site, "kit").level == "warn"  # until a person approves it, the one that was approved stays in use
    assert row(site, "server").level == "pass"
    approve_kit(site, read_kit(site.kit))
    rows = {found.name: found for found in check_connection(site)}
    assert rows["kit"].level == "pass"
    assert rows["server"].level == "fail"
    assert "not signed by the kit's authority" in rows["server"].text
    assert (rows["clock"].level, rows["authenticated"].level) == ("skip", "skip")


def test_a_kit_whose_authority_was_exchanged(site: SiteConfig) -> None:
    (site.kit / CA_FILE).write_bytes(make_authority("pilot").certificate_pem)
    (site.state / "approved-kit.json").unlink()
    rows = {found.name: found for found in check_connection(site)}
    assert rows["kit"].level == "fail"
    assert "not the certificate that kit.json names" in rows["kit"].text
    assert "ask the coordinator for the kit again" in rows["kit"].fix
    assert {rows[name].level for name in ("server", "clock", "authenticated", "study")} == {"skip"}


def test_wrong_host(joined: Joined, site: SiteConfig) -> None:
    port = site_port(site)
    alias = next((name for name in (socket.gethostname(), "127.0.0.2") if reaches(name, port)), None)
    if alias is None:
        pytest.skip("this machine has no second name for its loopback address")
    point_kit(site, address=f"{alias}:{port}")
    found = row(site, "server")
    assert found.level == "fail"
    assert "not good for this host" in found.text
    assert f"add {alias} to `hosts:`" in found.fix


def site_port(site: SiteConfig) -> int:
    return int(json.loads((site.kit / KIT_FILE).read_text())["address"].rpartition(":")[2])


def test_plain_http(site: SiteConfig) -> None:
    with served(NotFound) as address:
        point_kit(site, address=address)
        found = row(site, "server")
    assert found.level == "fail"
    assert "no TLS connection" in found.text


@pytest.mark.parametrize(("days_ago", "text"), [(731, "certificate has expired"), (-3, "is not valid yet")])
def test_certificate_out_of_its_time(
    joined: Joined, site: SiteConfig, tmp_path: Path, days_ago: int, text: str
) -> None:
    with served(LikeFlower, write_pair(good_pair(joined.study, days_ago), tmp_path)) as address:
        point_kit(site, address=address)
        found = row(site, "server")
    assert found.level == "fail"
    assert text in found.text


def test_a_certificate_that_ends_soon_warns(joined: Joined, site: SiteConfig, tmp_path: Path) -> None:
    with served(LikeFlower, write_pair(good_pair(joined.study, days_ago=720), tmp_path)) as address:
        point_kit(site, address=address)
        found = row(site, "server")
    assert (found.level, found.fix) == ("warn", "tell the coordinator to run `msfl-server renew-certificate`")
    assert "valid for 9 days" in found.text


@pytest.mark.parametrize(
    ("server_ahead_s", "level", "text"),
    [
        (0, "pass", "[01] s (ahead of|behind) the server's"),
        (-4, "warn", "[34] s ahead of the server's"),
        (-30, "fail", "(29|30) s ahead of the server's"),
        (30, "pass", "3[01] s behind the server's"),
        (100, "warn", "10[01] s behind the server's"),
        (300, "fail", "30[01] s behind the server's"),
    ],
)
def test_clock(joined: Joined, site: SiteConfig, tmp_path: Path, server_ahead_s: float, level: str, text: str) -> None:
    handler = type("Off", (LikeFlower,), {"ahead_s": server_ahead_s})
    with served(handler, write_pair(good_pair(joined.study), tmp_path)) as address:
        point_kit(site, address=address)
        found = row(site, "clock")
    assert found.level == level, found
    assert re.search(text, found.text)


def test_another_web_server(joined: Joined, site: SiteConfig, tmp_path: Path) -> None:
    with served(NotFound, write_pair(good_pair(joined.study), tmp_path)) as address:
        point_kit(site, address=address)
        found = row(site, "server")
    assert found.level == "fail"
    assert "not as a study's server: HTTP 404" in found.text


def test_through_a_proxy(site: SiteConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    with served(Proxy) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy}")
        rows = {found.name: found for found in check_connection(site)}
    assert Proxy.tunnels == [f"localhost:{site_port(site)}"]
    assert {rows[name].level for name in ("server", "clock", "authenticated")} == {"pass"}, rows


def test_nothing_listens(site: SiteConfig) -> None:
    point_kit(site, address=f"localhost:{free_port()}")
    assert "nothing answers on this port" in row(site, "server").text


def test_no_such_host(site: SiteConfig) -> None:
    point_kit(site, address="server.invalid:9443")
    found = row(site, "server")
    assert found.level == "fail"
    assert found.text == "server.invalid:9443: no such host"


@pytest.mark.parametrize(("ahead_s", "accepted"), [(3, True), (7, False), (-290, True), (-307, False)])
def test_how_far_off_flower_lets_a_clock_be(
    site: SiteConfig, monkeypatch: pytest.MonkeyPatch, ahead_s: int, accepted: bool
) -> None:
    """The limits of the clock row rest on this."""
    signed_at = node_auth_http_interceptor.now() + timedelta(seconds=ahead_s)
    monkeypatch.setattr(node_auth_http_interceptor, "now", lambda: signed_at)
    found = row(site, "authenticated")
    assert found.level == ("pass" if accepted else "fail")
    assert accepted or found.text == "the server refuses this site's signature"


def msfl_client(*arguments: object) -> subprocess.CompletedProcess[str]:
    return run_main(main, *arguments)


def test_check_shows_both_tables_and_its_exit_code_says_whether_start_will_do(site: SiteConfig, make_site) -> None:
    bids = make_site("scans", [f"sub-{number:02d}" for number in range(8)])
    site_file = site.kit.parent / "site.yaml"
    site_file.write_text(site_file.read_text().replace(str(site.data[0]), str(bids.root)))
    good = msfl_client("check", site_file, "--json")
    assert (good.returncode, good.stderr) == (0, "")
    assert [found["name"] for found in json.loads(good.stdout)["connection"]] == ROWS
    site.key.chmod(0o644)
    bad = msfl_client("check", site_file)
    assert bad.returncode == 2
    assert bad.stderr.splitlines() == [f"{site_file}: cannot take part yet: key; the fixes are given above"]
    assert "8 of 8 cases usable." in bad.stdout
    assert "In study pilot: " in bad.stdout
    assert f"  key: run `chmod 600 {site.key}`" in bad.stdout
    data_only = msfl_client("check", site_file, "--data-only")
    assert (data_only.returncode, data_only.stderr) == (0, "")
    assert "Connection" not in data_only.stdout
