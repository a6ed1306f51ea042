"""A real MLflow server, started by our command in a process group of its own."""

from __future__ import annotations

import base64
import http.client
import os
import signal
import socket
import subprocess
from pathlib import Path

from msfl_server.tracking.gate import USER
from msfl_server.tracking.mlflow_server import (
    mlflow_command,
    mlflow_environment,
    password_file,
    tracking_uri,
    wait_ready,
)

START_S = 90


class MlflowService:
    """The server of a study folder."""

    def __init__(self, study_dir: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.study_dir = study_dir
        self.uri = tracking_uri(self.port)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def password(self) -> str:
        """What opens its page."""
        return password_file(self.study_dir).read_text().strip()

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    def launch(self) -> None:
        """Start it, without waiting."""
        self._process = subprocess.Popen(
            mlflow_command(self.study_dir, self.port),
            env=mlflow_environment(os.environ),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def start(self) -> None:
        """Start it, until it answers."""
        self.launch()
        assert wait_ready(self.port, START_S)

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def ask(
        self,
        path: str,
        method: str = "GET",
        body: bytes | None = None,
        password: str | None = "",
        host: str = "localhost",
        **headers: str,
    ) -> tuple[int, bytes]:
        """Status and body of its answer; with the study's password unless another, or None, is given."""
        if password is not None:
            login = base64.b64encode(f"{USER}:{password or self.password}".encode()).decode()
            headers = {"Authorization": f"Basic {login}", **headers}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, headers={"Host": host, **headers})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()
