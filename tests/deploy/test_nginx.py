"""nginx with the template of deploy/nginx in front of a real SuperLink: sites' calls pass, nothing else does."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.deploy.certificates import write_pki
from tests.deploy.services import (
    DEPLOY,
    answers,
    folder_of,
    free_port,
    program,
    render,
    running,
    unprivileged,
    wait_for,
)

ACCOUNT = "www-data"
PROTOBUF = "application/protobuf"
SIGNED = {"flwr-signature": "of nobody"}


@dataclass(frozen=True)
class Proxy:
    """A front proxy and the SuperLink behind it."""

    port: int
    superlink_port: int
    ca: Path
    superlink_log: Path
    access_log: Path

    def logs(self, text: str) -> bool:
        """Whether nginx logs something, which it does a moment after it has answered."""
        return wait_for(lambda: text in self.access_log.read_text())

    def call(
        self, path: str, method: str = "POST", body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, str]:
        """Status and body of a call whose path is sent exactly as given."""
        trusted = ssl.create_default_context(cafile=str(self.ca))
        connection = http.client.HTTPSConnection("localhost", self.port, timeout=20, context=trusted)
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in {"Content-Type": PROTOBUF, "Content-Length": str(len(body)), **(headers or {})}.items():
            connection.putheader(name, value)
        with closing(connection):
            connection.endheaders(body)
            response = connection.getresponse()
            return response.status, response.read().decode()


@contextmanager
def nginx(folder: Path, pki: Path, superlink_port: int) -> Iterator[int]:
    """nginx, as an account without rights, before `superlink_port`; yields its port."""
    executable = program("nginx", "nginx")
    port = free_port()
    values = {
        "MSFL_LISTEN": f"127.0.0.1:{port}",
        "MSFL_SERVER_NAME": "localhost",
        "MSFL_SUPERLINK": f"127.0.0.1:{superlink_port}",
        "MSFL_PKI": pki,
        "MSFL_TMP": folder,
        "MSFL_ERROR_LOG": folder / "error.log",
        "MSFL_ACCESS_LOG": folder / "access.log",
    }
    config = folder / "nginx.conf"
    config.write_text(render(DEPLOY / "nginx" / "nginx.conf.template", values))
    command = [executable, "-e", "stderr", "-c", str(config), "-g", "daemon off;"]
    with running(command, lambda: answers(port), folder / "nginx.log", **unprivileged(ACCOUNT)):
        yield port


def readable_pki(folder: Path) -> Path:
    """A study's pki folder that belongs to nginx's account, the key readable by no other."""
    pki = write_pki(folder / "pki")
    (pki / "server.key").chmod(0o600)
    if os.geteuid() == 0:
        for path in pki.iterdir():
            shutil.chown(path, ACCOUNT)
    return pki


def test_envsubst_fills_the_template_in_as_these_tests_do() -> None:
    """With the command of deploy/README.md."""
    readme = (DEPLOY / "README.md").read_text()
    match = re.search(r"`(envsubst .*) > /etc/nginx/nginx.conf`", readme)
    assert match
    program("envsubst", "gettext-base")
    template = DEPLOY / "nginx" / "nginx.conf.template"
    names = sorted(set(re.findall(r"\$\{(MSFL_\w+)\}", template.read_text())))
    values = {name: f"/some/{name.lower()}" for name in names}
    environment = {"PATH": os.environ["PATH"], **values}
    done = subprocess.check_output(["sh", "-c", match[1]], cwd=template.parent, env=environment, text=True)
    assert done == render(template, values)
    assert "$remote_addr" in done
    assert "${MSFL_LISTEN}" not in done


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    program("nginx", "nginx")
    with folder_of(ACCOUNT) as folder:
        pki, port, log = readable_pki(folder), free_port(), folder / "superlink.log"
        command = [
            Path(sys.executable).with_name("flower-superlink"),
            *("--ssl-ca-certfile", pki / "ca.crt", "--ssl-certfile", pki / "server.crt"),
            *("--ssl-keyfile", pki / "server.key", "--enable-supernode-auth", "--database", folder / "superlink.db"),
            *("--host", "127.0.0.1", "--port", str(port), "--isolation", "process"),
        ]
        settings = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "FLWR_HOME": str(folder)}
        environment = {**os.environ, **settings}
        with (
            running(command, lambda: answers(port), log, env=environment),
            nginx(folder, pki, port) as nginx_port,
        ):
            yield Proxy(nginx_port, port, pki / "ca.crt", log, folder / "access.log")


def test_a_signed_call_reaches_superlink_which_refuses_it_and_an_unsigned_one_does_not(proxy: Proxy) -> None:
    assert proxy.call("/v1/fleet/get-run") == (401, "401\n")
    status, _ = proxy.call("/v1/fleet/pull-messages", headers=SIGNED)
    assert status == 401
    assert '"POST /v1/fleet/pull-messages HTTP/1' in proxy.superlink_log.read_text()
    assert "get-run" not in proxy.superlink_log.read_text()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_flowers_own_client_works_through_the_proxy(proxy: Proxy) -> None:
    from flwr.proto.control_pb2 import RegisterNodeRequest
    from flwr.supercore.control.control_http_client import ControlHttpClient
    from flwr.supercore.primitives.asymmetric import public_key_to_bytes
    from flwr.supernode.fleet_http_connection import http_request_response

    key = ec.generate_private_key(ec.SECP384R1())
    ca = proxy.ca.read_bytes()
    with ControlHttpClient.from_server_address(f"localhost:{proxy.superlink_port}", False, ca, []) as control:
        control.RegisterNode(RegisterNodeRequest(public_key=public_key_to_bytes(key.public_key()), name="hospital-a"))
    with http_request_response(
        f"localhost:{proxy.port}", False, ca, (key, key.public_key()), max_retries=1, max_wait_time=10
    ) as (node_id, receive, *_):
        assert node_id
        assert receive() is None
    assert proxy.logs('"POST /v1/fleet/activate-node HTTP/1.1" 200')
    assert proxy.logs('"POST /v1/fleet/pull-messages HTTP/1.1" 200')


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/docs",
        "/openapi.json",
        "/health",
        "/v1/control/register-node",
        "/v1/control/start-run",
        "/v1/runtime/acquire-task",
        "/v1/fleet",
        "/v1/fleet/",
        "/v1/fleetx/pull-messages",
        "//v1/control/start-run",
        "//v1/fleet/pull-messages",
        "/v1/fleet/../control/start-run",
        "/v1/fleet/./pull-messages",
        "/v1/control/../fleet/pull-messages",
        "/v1/fleet/%2e%2e/control/start-run",
        "/v1/fleet/%252e%252e/control/start-run",
        "/v1/fleet/..%2fcontrol/start-run",
        "/v1/fleet/..%5ccontrol/start-run",
        "/v1/fleet/..;/control/start-run",
        "/v1/%66leet/pull-messages",
        "/v1/fleet/pull-messages/../../control/start-run",
        "/v1/fleet/pull-messages?next=/v1/control/start-run",
        "/v1/fleet/pull-messages%00",
        "/V1/FLEET/pull-messages",
        "https://localhost/v1/control/start-run",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_no_other_path_gets_in(proxy: Proxy, path: str, method: str) -> None:
    before = len(proxy.superlink_log.read_text())
    status, body = proxy.call(path, method)
    assert (status, body) in {(404, "404\n"), (400, "400\n")}
    assert "HTTP/1" not in proxy.superlink_log.read_text()[before:]


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS"])
def test_sites_only_post(proxy: Proxy, method: str) -> None:
    before = len(proxy.superlink_log.read_text())
    assert proxy.call("/v1/fleet/pull-messages", method) == (405, "405\n")
    assert "HTTP/1" not in proxy.superlink_log.read_text()[before:]


def test_weights_fit_and_floods_do_not(proxy: Proxy) -> None:
    chunk = os.urandom(5 << 20)
    assert proxy.call("/v1/fleet/push-object", body=chunk, headers=SIGNED)[0] == 400  # not a message
    for call, too_large in (("push-object", 7 << 20), ("push-messages", 300_000), ("pull-messages", 20_000)):
        headers = {**SIGNED, "Content-Length": str(too_large)}
        assert proxy.call(f"/v1/fleet/{call}", headers=headers) == (413, "413\n")
    assert proxy.call("/v1/fleet/pull-messages", headers={**SIGNED, "x": "y" * 5000}) == (400, "400\n")


def test_who_is_slow_with_a_calls_first_lines_is_cut_off(proxy: Proxy) -> None:
    context = ssl.create_default_context(cafile=str(proxy.ca))
    with socket.create_connection(("localhost", proxy.port), timeout=15) as half_a_handshake:
        half_a_handshake.sendall(b"\x16\x03\x01\x02\x00")
        plain = socket.create_connection(("localhost", proxy.port), timeout=15)
        with context.wrap_socket(plain, server_hostname="localhost") as half_a_head:
            half_a_head.sendall(b"POST /v1/fleet/pull-messages HTTP/1.1\r\nhost: x\r\nx: ")
            with contextlib.suppress(ConnectionError):
                assert half_a_head.recv(1024) == b""
        with contextlib.suppress(ConnectionError):
            assert half_a_handshake.recv(1024) == b""


def test_a_busy_site_does_not_meet_the_limits(proxy: Proxy) -> None:
    trusted = ssl.create_default_context(cafile=str(proxy.ca))
    statuses: list[int] = []

    def transfer() -> None:
        with httpx.Client(verify=trusted, base_url=f"https://localhost:{proxy.port}", timeout=20) as client:
            for _ in range(50):
                statuses.append(
                    client.post("/v1/fleet/push-object", headers={"Content-Type": PROTOBUF, **SIGNED}).status_code
                )

    threads = [threading.Thread(target=transfer) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [401] * 200


def test_the_log_tells_who_called_what_but_no_header(proxy: Proxy) -> None:
    proxy.call("/v1/fleet/get-run", headers={"flwr-signature": "do-not-log-me", "User-Agent": "nor-me"})
    assert proxy.logs('127.0.0.1 "POST /v1/fleet/get-run HTTP/1.1" 401 ')
    log = proxy.access_log.read_text()
    assert "log-me" not in log
    assert "nor-me" not in log


def test_plain_http_is_refused(proxy: Proxy) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
    connection.request("POST", "/v1/fleet/pull-messages")
    assert connection.getresponse().status == 400


@pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
def test_old_tls_is_refused(proxy: Proxy, version: str) -> None:
    def handshake(*arguments: str) -> bool:
        command = [program("openssl", "openssl"), "s_client", "-connect", f"127.0.0.1:{proxy.port}", *arguments]
        done = subprocess.run(command, input=b"", capture_output=True, timeout=20)
        return b"Cipher is (NONE)" not in done.stdout

    assert handshake("-tls1_2")
    assert not handshake(version, "-cipher", "ALL:@SECLEVEL=0")


def test_the_door_talks_to_the_studys_superlink_only() -> None:
    """Something else on SuperLink's port, with a certificate of another authority, gets no call."""
    received: list[bytes] = []
    with folder_of(ACCOUNT) as folder, socket.create_server(("127.0.0.1", 0)) as listener:
        pki = readable_pki(folder)
        (folder / "other").mkdir()
        other = write_pki(folder / "other" / "pki")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(other / "server.crt", other / "server.key")

        def serve_once() -> None:
            plain, _ = listener.accept()
            try:
                with context.wrap_socket(plain, server_side=True) as stream:
                    received.append(stream.recv(1024))
            except OSError:  # ssl.SSLError included: the proxy hung up on the certificate
                plain.close()

        thread = threading.Thread(target=serve_once, daemon=True)
        thread.start()
        with nginx(folder, pki, listener.getsockname()[1]) as port:
            proxy = Proxy(port, 0, pki / "ca.crt", folder / "none", folder / "access.log")
            assert proxy.call("/v1/fleet/pull-messages", headers=SIGNED) == (502, "502\n")
        thread.join(10)
    assert received in ([], [b""])
