"""MLflow's page and tracking server of a study, on this machine alone: how to start it, and where it answers.

It keeps runs in `STUDY_DIR/mlflow/mlflow.db` and models and reports in `STUDY_DIR/mlflow/artifacts`. It lets in who
knows `STUDY_DIR/mlflow/password`, and where the system can see to it (Linux' Landlock; from 6.7 on, connections, too)
its process can open no file outside `STUDY_DIR/mlflow` but the program's own, and no connection: the authority's key is
out of its reach.
"""

from __future__ import annotations

import argparse
import http.client
import logging
import os
import secrets
import socket
import stat
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from msfl_common.config.secrets import Secret, read_variable
from msfl_common.errors import ConfigError, InputError, RunError
from msfl_common.system.confinement import confine
from msfl_common.system.files import private_folder, quoted, write_bytes
from msfl_common.system.processes import end_with_starter, python_command
from msfl_common.system.reading import MOST_KEY, read_bounded
from msfl_server.tracking.gate import USER, MlflowGate
from msfl_server.tracking.store import STORE_FILE, sqlite_uri

HOST = "127.0.0.1"
# Any local port, so that the page opens through an SSH tunnel too. Other names are refused: a web page could have
# its own name point here (DNS rebinding). Requests that change something are taken from local pages only.
_ALLOWED_HOSTS = "localhost,127.0.0.1,localhost:*,127.0.0.1:*"
_POLL_S = 0.2
PASSWORD_FILE = "password"


def mlflow_command(study_dir: Path, port: int, listener: int | None = None) -> list[str]:
    """The command line of the server; it holds no secret.

    Args:
        study_dir: the study's folder.
        port: where it answers.
        listener: number of a socket that listens there already, and that the server inherits.

    Raises:
        InputError: the folder's path cannot be written as a URI.
    """
    folder = mlflow_folder(study_dir.resolve())
    sqlite_uri(folder)
    inherited = [] if listener is None else ["--listener", listener]
    return python_command(
        "msfl_server.tracking.mlflow_server", "--folder", folder, "--listen", f"{HOST}:{port}", *inherited
    )


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


def mlflow_folder(study_dir: Path) -> Path:
    """Where the study's MLflow keeps everything."""
    return study_dir / "mlflow"


def password_file(study_dir: Path) -> Path:
    """The file of the password that opens the page; made, mode 0600, when it is missing."""
    return _made_password(mlflow_folder(study_dir))


def login(file: Secret) -> tuple[str, str]:
    """User and password from a file, or a variable, that holds USER:PASSWORD, or the password alone.

    Raises:
        InputError: it cannot be read, other accounts can read it, or it is empty.
    """
    if isinstance(file, str):
        return _user_and_password(read_variable(file, "mlflow_login").decode(errors="replace").strip(), file)
    try:
        found = file.stat()
        own = stat.S_IRWXG if os.name == "posix" and found.st_uid == os.geteuid() else 0  # a group's secret is root's
        if found.st_mode & (own | stat.S_IRWXO) and os.name == "posix":
            raise InputError(f"{file}: other accounts may read MLflow's password there; run `chmod 600 {quoted(file)}`")
        content = read_bounded(file, MOST_KEY).decode().strip()
    except (OSError, UnicodeError, ConfigError):
        raise InputError(f"{file}: cannot be read; expected MLflow's USER:PASSWORD in a file of mode 0600") from None
    return _user_and_password(content, str(file))


def _user_and_password(content: str, source: str) -> tuple[str, str]:
    user, colon, password = content.partition(":")
    if not content or (colon and not (user and password)):
        raise InputError(f"{source}: expected MLflow's USER:PASSWORD on one line, found none")
    return (user, password) if colon else (USER, content)


def listen(port: int) -> socket.socket:
    """Take the port on this machine, so that no other account can pose as MLflow there while MLflow is away.

    Raises:
        RunError: it is taken.
    """
    try:
        return socket.create_server((HOST, port), backlog=256)
    except OSError as error:
        raise RunError(
            f"port {port} on {HOST} cannot be opened for MLflow: {error.strerror}; free it or change mlflow_port"
        ) from None


def turn_away(listener: socket.socket) -> None:
    """End the connections that wait for a server that is away: who asked tries again later, and not for minutes."""
    listener.setblocking(False)
    try:
        while True:
            listener.accept()[0].close()
    except BlockingIOError:
        return
    finally:
        listener.setblocking(True)


def wait_ready(port: int, timeout_s: float) -> bool:
    """Wait until the server answers; False when it does not in time."""
    deadline = time.monotonic() + timeout_s
    while not _is_ready(port):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def _made_password(folder: Path) -> Path:
    file = folder / PASSWORD_FILE
    private_folder(folder)
    if not file.exists():
        write_bytes(file, (secrets.token_urlsafe(32) + "\n").encode(), secret=True)
    return file


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=2)  # unlike urllib, asks no proxy
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def main() -> None:
    """Be the server. A store killed while MLflow makes it can never be opened, so it is made aside first."""
    parser = argparse.ArgumentParser(prog="python -I -m msfl_server.tracking.mlflow_server", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where it keeps everything that has no other place")
    parser.add_argument("--listen", metavar="HOST:PORT", required=True)
    parser.add_argument("--listener", type=int, help="number of a socket that listens there already")
    parser.add_argument("--store", help="URI of a database; without it, SQLite in the folder")
    parser.add_argument("--artifacts", help="URI of the place for artifacts; without it, in the folder")
    parser.add_argument("--password", type=Path, help="file with USER:PASSWORD; without it, one is made in the folder")
    parser.add_argument("--hosts", default=_ALLOWED_HOSTS, help="names that it may be called by, with commas")
    asked = parser.parse_args()
    end_with_starter()
    os.umask(0o077)
    user, password = login(asked.password or _made_password(asked.folder))
    host, _, port = asked.listen.rpartition(":")
    listener = (
        socket.create_server((host, int(port)), backlog=256)
        if asked.listener is None
        else socket.socket(fileno=asked.listener)
    )
    temporary = asked.folder / "tmp"
    temporary.mkdir(exist_ok=True)
    tempfile.tempdir = os.environ["TMPDIR"] = os.environ["HOME"] = str(temporary)
    if asked.store is None and asked.artifacts is None and not confine([asked.folder]):
        logging.getLogger(__name__).warning(
            "this system has no Landlock: MLflow's process may open the account's files"
        )
    if asked.store is None and not (asked.folder / STORE_FILE).exists():
        from msfl_server.tracking.mlflow_tracker import make_store

        make_store(asked.folder)
    store = asked.store or sqlite_uri(asked.folder)
    artifacts = asked.artifacts or (asked.folder / "artifacts").resolve().as_uri()
    os.environ |= {
        "MLFLOW_SERVER_ALLOWED_HOSTS": asked.hosts,
        "_MLFLOW_SERVER_FILE_STORE": store,
        "_MLFLOW_SERVER_REGISTRY_STORE": store,
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": artifacts,
    }
    import uvicorn

    from msfl_server.tracking.application import PROXIED_ROOT, application

    os.environ["_MLFLOW_SERVER_ARTIFACT_ROOT"] = PROXIED_ROOT
    gate = MlflowGate(application(store, artifacts), user, password)
    settings = uvicorn.Config(gate, log_level="warning", access_log=False, server_header=False, ws="none")
    uvicorn.Server(settings).run(sockets=[listener])


if __name__ == "__main__":
    main()
