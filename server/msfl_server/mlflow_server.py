"""MLflow's page and tracking server of a study, on this machine alone: how to start it, and where it answers.

It keeps runs in `STUDY_DIR/mlflow/mlflow.db` and models and reports in `STUDY_DIR/mlflow/artifacts`. MLflow runs
its web server in a child process: start the command in a process group of its own, and end the group.
"""

from __future__ import annotations

import http.client
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from msfl_common.errors import InputError
from msfl_common.processes import child_environment, python_command

HOST = "127.0.0.1"
# Any local port, so that the page opens through an SSH tunnel too. Other names are refused: a web page could have
# its own name point here (DNS rebinding). Requests that change something are taken from local pages only.
_ALLOWED_HOSTS = "localhost,127.0.0.1,localhost:*,127.0.0.1:*"
_STORE_FILE = "mlflow.db"
_POLL_S = 0.2


def mlflow_command(study_dir: Path, port: int) -> list[str]:
    """The command line of the server; it holds no secret.

    Raises:
        InputError: the folder's path cannot be written as a URI.
    """
    sqlite_uri(_folder(study_dir))
    return python_command("msfl_server.mlflow_server", study_dir.resolve(), port)


def mlflow_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The server's environment: the one given, less all settings of MLflow there, plus ours.

    No telemetry, no jobs that run code in the server's name, no gateway to language models.
    """
    kept = {name: value for name, value in environment.items() if not name.startswith(("MLFLOW_", "_MLFLOW_"))}
    return kept | {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_ENABLE_AI_GATEWAY": "false",
    }


def tracking_uri(port: int) -> str:
    """What `track` is told to use the server, and what a browser opens."""
    return f"http://{HOST}:{port}"


def wait_ready(port: int, timeout_s: float) -> bool:
    """Wait until the server answers; False when it does not in time."""
    deadline = time.monotonic() + timeout_s
    while not _is_ready(port):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def sqlite_uri(folder: Path) -> str:
    """MLflow's URI of the store in a folder.

    Raises:
        InputError: the folder's path cannot be written as such a URI.
    """
    path = (folder / _STORE_FILE).resolve().as_posix()
    if "?" in path or "%" in path:
        raise InputError(f"{folder}: MLflow's SQLite store allows no ? or % in a path; choose another folder")
    return f"sqlite:///{path}"


def _folder(study_dir: Path) -> Path:
    return study_dir / "mlflow"


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=2)  # unlike urllib, asks no proxy
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _serve(study_dir: Path, port: int) -> None:
    """Become the server. A store killed while MLflow makes it can never be opened, so it is made aside first."""
    folder = _folder(study_dir)
    if not (folder / _STORE_FILE).exists():
        from msfl_server.tracking import make_store

        folder.mkdir(parents=True, exist_ok=True)
        make_store(folder)
    options = {
        "host": HOST,
        "port": str(port),
        "workers": "1",
        "backend-store-uri": sqlite_uri(folder),
        "artifacts-destination": (folder / "artifacts").resolve().as_uri(),
        "allowed-hosts": _ALLOWED_HOSTS,
    }
    given = (part for name, value in options.items() for part in (f"--{name}", value))
    command = python_command("mlflow", "server", "--serve-artifacts", *given)
    os.chdir(os.sep)  # uvicorn, which MLflow starts, puts the working directory first on the path, whatever Python's is
    os.execve(command[0], command, child_environment())


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), int(sys.argv[2]))
