"""server.yaml: what is accepted, and how a fault is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from msfl_common.errors import ConfigError, InputError
from msfl_server.study.server_config import ServerConfig, load_server


def load(folder: Path, text: str) -> ServerConfig:
    path = folder / "server.yaml"
    path.write_text(text)
    return load_server(path)


def test_hosts_are_enough(tmp_path: Path) -> None:
    server = load(tmp_path, "hosts: [fl.example.org, 10.0.0.7]\n")
    assert server == ServerConfig(hosts=("fl.example.org", "10.0.0.7"))
    assert (server.port, server.control_port, server.mlflow_port, server.bind) == (9443, 9444, 9445, "0.0.0.0")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("hosts: [fl.example.org]", "fl.example.org:9443"),
        ("hosts: [fl.example.org]\nport: 8443\npublic_port: 443", "fl.example.org:443"),
        ("hosts: ['::1']", "[::1]:9443"),
    ],
)
def test_the_address_that_sites_use(tmp_path: Path, text: str, address: str) -> None:
    assert load(tmp_path, text).address == address


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("port: 1\n", "hosts: required, but not there"),
        ("hosts: []\n", "hosts: found []; "),
        ("hosts: ['https://x']\n", "hosts: found ['https://x']; each is a host name or an IP address"),
        ("hosts: ['x:9443']\n", "without https:// and port"),
        ("hosts: ['10.0.0.300']\n", "each is a host name or an IP address"),
        ("hosts: ['-x']\n", "each is a host name or an IP address"),
        ("hosts: [x]\nport: 70000\n", "port: found 70000; expected 65535 or less"),
        ("hosts: [x]\nbind: here\n", "bind: found 'here'; an IP address is needed"),
        ("hosts: [x]\nport: 9444\n", "found [9444, 9444, 9445]; each needs a number of its own"),
        ("hosts: [x]\nprot: 1\n", "prot: unknown key"),
    ],
)
def test_a_fault_is_one_line(tmp_path: Path, text: str, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert len(caught.value.faults) == 1
    assert line in str(caught.value)


@pytest.mark.parametrize("uri", ["http://me:secret@host:5000", "postgresql://:secret@host/runs"])
def test_a_password_in_a_uri_is_refused_and_not_repeated(tmp_path: Path, uri: str) -> None:
    with pytest.raises(InputError, match="mlflow_login") as caught:
        load(tmp_path, f"hosts: [x]\nmlflow: {uri}\n")
    assert "secret" not in str(caught.value)


def test_the_file_of_a_login_is_found_beside_the_settings(tmp_path: Path) -> None:
    assert (
        load(tmp_path, "hosts: [x]\nmlflow: http://me@host\nmlflow_login: login\n").mlflow_login == tmp_path / "login"
    )


def test_every_field_is_described() -> None:
    assert all(field.description for field in ServerConfig.model_fields.values())
