"""The systemd units, judged by systemd itself."""

from __future__ import annotations

import configparser
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.services import DEPLOY, program

UNITS = sorted((DEPLOY / "systemd").iterdir())
SERVICES = ("msfl-server.service", "msfl-site.service")


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units, with this machine's commands where /opt/msfl would be."""
    for unit in UNITS:
        (tmp_path / unit.name).write_text(unit.read_text().replace("/opt/msfl/bin", str(Path(sys.executable).parent)))
    return tmp_path


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


@pytest.mark.parametrize("unit", SERVICES)
def test_systemd_calls_the_exposure_low(installed: Path, unit: str) -> None:
    analyze = program("systemd-analyze", "systemd")
    command = [analyze, "security", "--offline=true", "--threshold=25", installed / unit]
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
    }
    assert wanted.items() <= section(unit, "Service").items()
    assert section(unit, "Unit")["StartLimitIntervalSec"] == "0"  # never "started too often", for good


def test_a_site_reads_its_data_and_writes_its_state_alone() -> None:
    service = section("msfl-site.service", "Service")
    assert service["ReadOnlyPaths"] == "/srv/ms-bids"
    assert service["StateDirectory"] == "msfl-site"
    assert "ReadWritePaths" not in service
    assert "/var/lib/msfl-site/site.yaml" in service["ExecStart"]


@pytest.mark.parametrize(("unit", "port"), [("msfl-server.service", "9446"), ("msfl-site.service", "9447")])
def test_health_is_offered_on_the_documented_port(unit: str, port: str) -> None:
    assert section(unit, "Service")["ExecStart"].endswith(f"--health-port {port}")
    probe = (DEPLOY / "systemd" / "msfl-health@.service").read_text()
    assert f"msfl-health@{port}" in probe
    assert "-I -m msfl_common.health 127.0.0.1:%i" in probe
