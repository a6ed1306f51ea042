"""The health service and its probe, over real sockets."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from msfl_common.errors import InputError
from msfl_common.system.health import HealthService, probe, serve


@pytest.fixture
def health() -> Iterator[HealthService]:
    service = serve(0)
    yield service
    service.stop()


def command(address: str) -> tuple[int, str]:
    """Exit code and output of the probe that Docker, systemd and Kubernetes run."""
    done = subprocess.run(
        [sys.executable, "-I", "-m", "msfl_common.system.health", address], capture_output=True, text=True
    )
    return done.returncode, done.stdout


def test_a_process_serves_when_it_says_so_and_only_then(health: HealthService) -> None:
    address = f"127.0.0.1:{health.port}"
    assert probe(address) == "NOT_SERVING"
    health.set_serving(True)
    assert probe(address) == "SERVING"
    health.set_serving(False)
    assert probe(address) == "NOT_SERVING"


@pytest.mark.slow
def test_the_command_tells_by_its_exit_code(health: HealthService) -> None:
    address = f"127.0.0.1:{health.port}"
    assert command(address) == (1, f"{address}: NOT_SERVING\n")
    health.set_serving(True)
    assert command(address) == (0, f"{address}: SERVING\n")
    health.stop()
    assert command(address) == (1, f"{address}: UNAVAILABLE\n")


def test_a_proxy_does_not_see_the_probe(health: HealthService, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "grpc_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    health.set_serving(True)
    assert probe(f"127.0.0.1:{health.port}") == "SERVING"


def test_two_processes_cannot_share_a_health_port(health: HealthService) -> None:
    with pytest.raises(InputError, match=f"127.0.0.1:{health.port}.*--health-port"):
        serve(health.port)
