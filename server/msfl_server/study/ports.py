"""Whether the ports that a study's server needs are free, before anything is started."""

from __future__ import annotations

import errno
import os
import socket
import time

from msfl_common.errors import InputError
from msfl_common.system.files import quoted
from msfl_server.study.paths import StudyFolder
from msfl_server.study.server_config import ServerConfig

_HERE = "127.0.0.1"


def check_ports(folder: StudyFolder, server: ServerConfig, patience_s: float = 5.0) -> None:
    """See that every port of the study's server can be opened.

    Args:
        folder: the study's.
        server: its server's settings.
        patience_s: how long a server of this study that was killed may take to end.

    Raises:
        InputError: one cannot: each with its setting, the reason and what to do.
    """
    wanted = [("port", server.bind, server.port), ("control_port", _HERE, server.control_port)]
    if server.mlflow is None:
        wanted.append(("mlflow_port", _HERE, server.mlflow_port))
    end = time.monotonic() + patience_s
    while lines := [fault for setting, host, port in wanted if (fault := _fault(folder, setting, host, port))]:
        if time.monotonic() > end:
            raise InputError("\n".join(lines))
        time.sleep(0.2)


def _fault(folder: StudyFolder, setting: str, host: str, port: int) -> str | None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
        return None
    except OSError as error:
        number, why = error.errno, os.strerror(error.errno) if error.errno else str(error)
    place = f"{folder.server_file}: {setting}: {port} on {host} cannot be opened"
    if number == errno.EADDRINUSE:
        renew = f", then run `msfl-server renew-certificate {quoted(folder.root)}`" if setting == "port" else ""
        return (
            f"{place}: another program has it, such as another study's server (`ss -ltnp 'sport = :{port}'` says "
            f"which); stop that, or write another port there{renew}"
        )
    if number == errno.EADDRNOTAVAIL:
        return f"{place}: this machine has no such address; correct `bind`"
    if number == errno.EACCES:
        return f"{place}: this account may not open it; choose one from 1024"
    return f"{place}: {why}; choose another"
