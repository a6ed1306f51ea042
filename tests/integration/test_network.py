"""Server and sites as machines of their own: TLS through nginx, and a cable pulled in the middle of a round.

Each machine is a network namespace; where these are not permitted, everything runs on loopback, with a proxy for
the cable.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.deploy.services import DEPLOY, program, render
from tests.faults.proxy import Proxy
from tests.integration.conftest import SITES
from tests.integration.deployment import Deployment, deployment, free_ports, wait_for
from tests.kits import point_kit

from msfl_common.config.study import StudyConfig
from msfl_server.study.server_config import load_server

SERVER_IP = "10.77.31.1"
PUBLIC_PORT = 9443

pytestmark = [pytest.mark.long, pytest.mark.timeout(420)]


@dataclass(frozen=True)
class Network:
    """A deployment behind nginx, and the cable of site-a."""

    federation: Deployment
    pull: Callable[[], None]
    plug: Callable[[], None]


def ip(*arguments: str) -> None:
    """The `ip` command."""
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def namespaces_permitted() -> bool:
    """Whether this process may make network namespaces."""
    try:
        ip("netns", "add", "msfl-probe")
        ip("netns", "del", "msfl-probe")
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


@contextmanager
def machines(*names: str) -> Iterator[dict[str, list[str]]]:
    """A namespace for the server and each site, joined by a switch; what to run a command in each through."""
    prefix = f"msfl{os.getpid()}"
    spaces = {name: f"{prefix}-{name}" for name in ("server", *names)}
    try:
        for space in spaces.values():
            ip("netns", "add", space)
            ip("-n", space, "link", "set", "lo", "up")
        server = spaces["server"]
        ip("-n", server, "link", "add", "switch", "type", "bridge")
        ip("-n", server, "addr", "add", f"{SERVER_IP}/24", "dev", "switch")
        ip("-n", server, "link", "set", "switch", "up")
        for number, name in enumerate(names, start=2):
            cable = ["link", "add", f"to{number}", "type", "veth", "peer", "name", "eth0", "netns", spaces[name]]
            ip("-n", server, *cable)
            ip("-n", server, "link", "set", f"to{number}", "master", "switch", "up")
            ip("-n", spaces[name], "addr", "add", f"{SERVER_IP[:-1]}{number}/24", "dev", "eth0")
            ip("-n", spaces[name], "link", "set", "eth0", "up")
        yield {name: ["ip", "netns", "exec", space] for name, space in spaces.items()}
    finally:
        for space in spaces.values():
            subprocess.run(["ip", "netns", "del", space], check=False, capture_output=True)


@contextmanager
def reverse_proxy(made: Deployment, host: str, port: int, prefix: list[str]) -> Iterator[None]:
    """nginx before the SuperLink, with the configuration that deploy/ ships."""
    folder = made.base / "nginx"
    folder.mkdir()
    values = {
        "MSFL_LISTEN": f"{host}:{port}",
        "MSFL_SERVER_NAME": load_server(made.study.server_file).hosts[0],
        "MSFL_SUPERLINK": f"127.0.0.1:{load_server(made.study.server_file).port}",
        "MSFL_PKI": made.study.ca_certificate.parent,
        "MSFL_TMP": folder,
        "MSFL_ERROR_LOG": folder / "error.log",
        "MSFL_ACCESS_LOG": folder / "access.log",
    }
    config = folder / "nginx.conf"
    config.write_text(render(DEPLOY / "nginx" / "nginx.conf.template", values))
    account = "user root;" if os.geteuid() == 0 else ""  # pytest's folders are closed to other accounts
    command = [*prefix, program("nginx", "nginx"), "-e", "stderr", "-c", str(config), "-g", f"daemon off; {account}"]
    with (folder / "nginx.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def network(
    tmp_path: Path, real_study: StudyConfig, site_data: dict[str, Path], ready_store: Path
) -> Iterator[Network]:
    """Machines where they are permitted, else loopback."""
    program("nginx", "nginx")
    with ExitStack() as stack:
        if namespaces_permitted():
            spaces = stack.enter_context(machines(*SITES))
            made = stack.enter_context(
                deployment(tmp_path / "federation", real_study, site_data, SERVER_IP, PUBLIC_PORT, ready_store)
            )
            made.prefix = spaces
            stack.enter_context(reverse_proxy(made, SERVER_IP, PUBLIC_PORT, spaces["server"]))
            cable = ("-n", spaces["server"][-1], "link", "set", "to2")
            yield Network(made, lambda: ip(*cable, "down"), lambda: ip(*cable, "up"))
        else:
            (port,) = free_ports(1)
            made = stack.enter_context(
                deployment(tmp_path / "federation", real_study, site_data, "localhost", port, ready_store)
            )
            stack.enter_context(reverse_proxy(made, "127.0.0.1", port, []))
            proxy = Proxy(port)
            stack.callback(proxy.close)
            point_kit(made.site("site-a") / "site.yaml", made.study.ca_key, f"localhost:{proxy.port}")
            yield Network(made, lambda: proxy.set("cut"), lambda: proxy.set("up"))


def test_a_study_among_machines_survives_a_pulled_cable(network: Network, expected: bytes) -> None:
    federation = network.federation
    federation.start_sites(*SITES)
    federation.start_server()
    federation.wait_for_round(2)
    network.pull()
    wait_for("the server to miss site-a", lambda: is_missed(federation), 90)
    network.plug()
    assert federation.wait_for_end() == 0
    assert (federation.study.run / "model" / "model.safetensors").read_bytes() == expected
    summary = json.loads((federation.study.run / "summary.json").read_text())
    assert [site["name"] for site in summary["sites"]] == list(SITES)
    calls = (federation.base / "nginx" / "access.log").read_text().splitlines()
    assert calls
    assert all(" /v1/fleet/" in call for call in calls)


def is_missed(federation: Deployment) -> bool:
    """Whether the server sees the two other sites only."""
    return sorted(dict(federation.status().get("online", {}))) == ["site-b", "site-c"]  # type: ignore[call-overload]
