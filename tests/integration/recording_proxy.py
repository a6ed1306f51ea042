"""A proxy that ends the sites' TLS, as no one but the study's server can: it writes down every byte, and may lie."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PASSED_ON = ("content-type", "content-length", "date")


@dataclass(frozen=True)
class Call:
    """A request of a site and what it was answered with."""

    line: str
    headers: dict[str, str]
    body: bytes
    status: int
    answer: bytes

    @property
    def path(self) -> str:
        return self.line.split()[1]

    @property
    def raw(self) -> bytes:
        """All that left."""
        head = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        return f"{self.line}\r\n{head}\r\n".encode("latin-1") + self.body


@dataclass(frozen=True)
class Lie:
    """An answer that the server did not give; `endless` goes on for ever after it."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    endless: bool = False


Tamper = Callable[[str, bytes], Lie | None]  # path and body of a request


class RecordingProxy:
    """Listens at `address` for sites and hands on to the server at `server_port` of this machine."""

    def __init__(self, server_port: int, authority: Path, certificate: Path, key: Path) -> None:
        self.calls: list[Call] = []
        self.tamper: Tamper = lambda path, body: None
        self.server_port = server_port
        self.authority = ssl.create_default_context(cafile=str(authority))
        self.connections: set[socket.socket] = set()
        self.handshakes_failed = 0
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        self.show(certificate, key)

    @property
    def address(self) -> str:
        return f"localhost:{self._server.server_port}"

    def show(self, certificate: Path | None, key: Path | None = None) -> None:
        """Show another certificate from now on, or speak plain HTTP; open connections end."""
        self.tls = None
        if certificate is not None:
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.tls.load_cert_chain(certificate, key)
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def paths(self) -> list[str]:
        return [call.path for call in list(self.calls)]

    def __enter__(self) -> RecordingProxy:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self.show(None)
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    proxy: RecordingProxy
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_: object) -> None:
        """A site that hangs up is no fault of the test."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        self.proxy = self.server.proxy
        self.request.settimeout(60)
        if self.proxy.tls is not None:
            try:
                self.request = self.proxy.tls.wrap_socket(self.request, server_side=True)
            except OSError:
                self.proxy.handshakes_failed += 1
                raise
        self.proxy.connections.add(self.request)
        super().setup()

    def finish(self) -> None:
        self.proxy.connections.discard(self.request)
        with contextlib.suppress(OSError):
            super().finish()
        self.request.close()

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        lie = self.proxy.tamper(self.path, body)
        status, headers, content = (lie.status, lie.headers, lie.body) if lie else self.ask(body)
        self.proxy.calls.append(
            Call(self.requestline, {name.lower(): value for name, value in self.headers.items()}, body, status, content)
        )
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if lie and lie.endless:
            self.end_headers()
            self.close_connection = True
            for _ in range(1000):  # 1 GB
                self.wfile.write(bytes(1_000_000))
            return
        if lie:
            self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_DELETE = do_HEAD = do_OPTIONS = do_POST = answer

    def ask(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        upstream = http.client.HTTPSConnection("localhost", self.proxy.server_port, context=self.proxy.authority)
        with contextlib.closing(upstream):  # a new one each time: the server ends connections that idle
            try:
                upstream.request(self.command, self.path, body, dict(self.headers.items()))
                answer = upstream.getresponse()
                content = answer.read()
            except (OSError, http.client.HTTPException):  # the server has ended; the request left all the same
                return 502, {"content-length": "0"}, b""
        headers = {name: value for name, value in answer.getheaders() if name.lower() in PASSED_ON}
        return answer.status, {**headers, "content-length": str(len(content))}, content

    def log_message(self, *_: object) -> None:
        """Quiet."""


@contextlib.contextmanager
def proxy_to(server_port: int, pki: Path) -> Iterator[RecordingProxy]:
    """A proxy with the server's own certificate."""
    with RecordingProxy(server_port, pki / "ca.crt", pki / "server.crt", pki / "server.key") as proxy:
        yield proxy
