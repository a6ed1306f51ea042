"""Ports that are taken are named, each with its setting, before anything is started."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from msfl_common.errors import InputError
from msfl_server.study.paths import StudyFolder
from msfl_server.study.ports import check_ports
from msfl_server.study.server_config import ServerConfig


def test_taken_ports_are_named_with_their_settings(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        with socket.create_server(("127.0.0.1", 0)) as three:
            free = three.getsockname()[1]
        taken = [one.getsockname()[1], two.getsockname()[1]]
        server = ServerConfig(
            hosts=("localhost",), bind="127.0.0.1", port=taken[0], control_port=free, mlflow_port=taken[1]
        )
        with pytest.raises(InputError) as refused:
            check_ports(folder, server, patience_s=0)
    lines = str(refused.value).splitlines()
    assert f"port: {taken[0]} on 127.0.0.1 cannot be opened" in lines[0]
    assert f"mlflow_port: {taken[1]} on 127.0.0.1 cannot be opened" in lines[1]
    assert "another program has it" in lines[0]
    assert "renew-certificate" in lines[0]
    check_ports(folder, server, patience_s=0)


def test_an_address_of_another_machine_is_named(tmp_path: Path) -> None:
    server = ServerConfig(hosts=("localhost",), bind="192.0.2.1", port=1025, mlflow="http://127.0.0.1:1")
    with pytest.raises(InputError, match="no such address; correct `bind`"):
        check_ports(StudyFolder(tmp_path), server, patience_s=0)
