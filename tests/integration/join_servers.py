"""What a joining site meets: Flower's own SuperLink, web servers, and a hospital's proxy."""

from __future__ import annotations

import os
import select
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from flwr.proto.control_pb2 import RegisterNodeRequest
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.primitives.asymmetric import public_key_to_bytes

from msfl_server.study.certificates import Pair, issue_server_certificate
from msfl_server.study.paths import StudyFolder

BIN = Path(sys.executable).parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        assert process.poll() is None, "SuperLink ended"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    pytest.fail("SuperLink did not open its port within 60 s")


@contextmanager
def superlink(study: StudyFolder, port: int) -> Iterator[None]:
    command = [BIN / "flower-superlink", "--enable-supernode-auth", "--isolation", "process"]
    command += ["--ssl-ca-certfile", study.ca_certificate, "--ssl-certfile", study.server_certificate]
    command += ["--ssl-keyfile", study.server_key, "--database", study.database]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    settings = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "FLWR_HOME": str(study.root / "flwr")}
    with (study.root / "superlink.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env=os.environ | settings, start_new_session=True, cwd=study.root
        )
        try:
            wait_for(port, process)
            yield
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(20)


def control(study: StudyFolder, port: int) -> ControlHttpClient:
    authority = study.ca_certificate.read_bytes()
    return ControlHttpClient.from_server_address(f"localhost:{port}", False, authority, interceptors=[])


def register(study: StudyFolder, port: int, site: str) -> None:
    """What `flwr supernode register` does."""
    key = serialization.load_ssh_public_key(study.public_key_file(site).read_bytes())
    with control(study, port) as client:
        assert client.RegisterNode(RegisterNodeRequest(public_key=public_key_to_bytes(key), name=site)).node_id


@contextmanager
def served(handler: type[BaseHTTPRequestHandler], certificate: Path | None = None) -> Iterator[str]:
    """A web server with its own way of answering, with TLS when it is given a certificate; its host:port."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *arguments: object) -> None:
            pass

    server = Server(("127.0.0.1", 0), handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"localhost:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class NotFound(BaseHTTPRequestHandler):
    """A web server that is no study's server."""

    def do_POST(self) -> None:
        self.send_error(404)

    def log_message(self, *arguments: object) -> None:
        pass


class LikeFlower(NotFound):
    """Answers as SuperLink does to a registered key, by a clock that may be off."""

    ahead_s = 0.0

    def do_POST(self) -> None:
        content = b'{"code": 2003, "detail": "Invalid heartbeat interval."}'
        self.send_response(400)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def date_time_string(self, timestamp: float | None = None) -> str:
        return super().date_time_string(time.time() + self.ahead_s)


class Proxy(NotFound):
    """A hospital's proxy: tunnels to the host and port asked for."""

    tunnels: ClassVar[list[str]] = []

    def do_CONNECT(self) -> None:
        self.tunnels.append(self.path)
        host, _, port = self.path.rpartition(":")
        with socket.create_connection((host, int(port))) as server:
            self.send_response(200)
            self.end_headers()
            ends = [self.connection, server]
            while True:
                for end in select.select(ends, [], [])[0]:
                    content = end.recv(65_536)
                    if not content:
                        return
                    (server if end is self.connection else self.connection).sendall(content)


def write_pair(pair: Pair, folder: Path) -> Path:
    (folder / "server.pem").write_bytes(pair.certificate_pem + pair.key_pem)
    return folder / "server.pem"


def good_pair(study: StudyFolder, days_ago: int = 0) -> Pair:
    start = datetime.now(UTC) - timedelta(days=days_ago)
    return issue_server_certificate(authority_of(study), ["localhost"], now=start)


def authority_of(study: StudyFolder) -> Pair:
    key = serialization.load_pem_private_key(study.ca_key.read_bytes(), None)
    return Pair(x509.load_pem_x509_certificate(study.ca_certificate.read_bytes()), key)  # type: ignore[arg-type]


def reaches(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), 1).close()
    except OSError:
        return False
    return True
