"""The systemd units, judged by systemd itself."""

from __future__ import annotations

import configparser
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.services import DEPLOY, program

UNITS = sorted((DEPLOY / "systemd").glob("msfl-*"))
DROP_INS = sorted((DEPLOY / "systemd" / "drop-ins").glob("*.conf"))
SERVICES = ("msfl-server.service", "msfl-site.service")
HIGHEST_EXPOSURE = "20"  # of 100, as systemd counts


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units, with this machine's commands where /opt/msfl would be."""
    for unit in UNITS:
        (tmp_path / unit.name).write_text(unit.read_text().replace("/opt/msfl/bin", str(Path(sys.executable).parent)))
    return tmp_path


def with_drop_in(installed: Path, drop_in: Path) -> Path:
    """The site's unit with a drop-in behind it, which is how systemd reads the two."""
    unit = installed / "msfl-site.service"
    unit.write_text(unit.read_text() + drop_in.read_text())
    return unit


def section(unit: str, name: str) -> dict[str, str]:
    """Settings of one section; of repeated ones the last."""
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(DEPLOY / "systemd" / unit)
    return dict(parser[name])


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_systemd_understands_every_setting(installed: Path, unit: Path) -> None:
    command = [program("systemd-analyze", "systemd"), "verify", "--man=no", installed / unit.name]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("drop_in", DROP_INS, ids=lambda path: path.name)
def test_systemd_understands_every_drop_in(installed: Path, drop_in: Path) -> None:
    unit = with_drop_in(installed, drop_in)
    command = [program("systemd-analyze", "systemd"), "verify", "--man=no", unit]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("unit", [*SERVICES, "msfl-health@.service"])
def test_systemd_calls_the_exposure_low(installed: Path, unit: str) -> None:
    check_exposure(installed / unit)


@pytest.mark.parametrize("drop_in", DROP_INS, ids=lambda path: path.name)
def test_no_drop_in_takes_the_exposure_up(installed: Path, drop_in: Path) -> None:
    check_exposure(with_drop_in(installed, drop_in))


def check_exposure(unit: Path) -> None:
    analyze = program("systemd-analyze", "systemd")
    command = [analyze, "security", "--offline=true", f"--threshold={HIGHEST_EXPOSURE}", unit]
    done = subprocess.run(command, capture_output=True, text=True)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze cannot judge a unit that is not loaded")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("unit", SERVICES)
def test_services_are_hardened_and_come_back(unit: str) -> None:
    wanted = {
        "NoNewPrivileges": "yes",
        "ProtectSystem": "strict",
        "ProtectHome": "yes",
        "CapabilityBoundingSet": "",
        "KillMode": "control-group",
        "Restart": "always",
        "RestartPreventExitStatus": "0 130",  # finished, or told to stop
        "SuccessExitStatus": "130",
        "User": "msfl",
        "UMask": "0077",
        "PrivateUsers": "yes",
        "PrivateDevices": "yes",
        "LimitCORE": "0",
    }
    assert wanted.items() <= section(unit, "Service").items()
    assert {"MemoryMax", "TasksMax", "LimitNOFILE", "LogRateLimitBurst", "InaccessiblePaths"} <= section(
        unit, "Service"
    ).keys()
    assert section(unit, "Unit")["StartLimitIntervalSec"] == "0"  # never "started too often", for good


def test_a_site_reads_its_data_and_writes_its_state_alone() -> None:
    service = section("msfl-site.service", "Service")
    assert service["BindReadOnlyPaths"] == "/opt/msfl /srv/ms-bids"
    assert service["BindPaths"] == "/var/lib/msfl-site"
    assert set(service["TemporaryFileSystem"].split()) == {"/var:ro", "/srv:ro", "/mnt:ro", "/media:ro", "/opt:ro"}
    assert service["StateDirectory"] == "msfl-site"
    assert "ReadWritePaths" not in service
    assert "/var/lib/msfl-site/site.yaml" in service["ExecStart"]


@pytest.mark.parametrize(("unit", "port"), [("msfl-server.service", "9446"), ("msfl-site.service", "9447")])
def test_health_is_offered_on_the_documented_port(unit: str, port: str) -> None:
    assert section(unit, "Service")["ExecStart"].endswith(f"--health-port {port}")
    probe = (DEPLOY / "systemd" / "msfl-health@.service").read_text()
    assert f"msfl-health@{port}" in probe
    assert "-I -m msfl_common.system.health 127.0.0.1:%i" in probe
