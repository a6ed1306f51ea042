"""Flower's SuperLink as the coordinator runs it: one process, two sockets, no code of others.

    public port    TLS, answers `/v1/fleet/` only: what sites need, each call signed with a registered key
    control port   TLS on 127.0.0.1, answers everything to whoever knows the study's secret

Flower serves submitting runs and registering nodes beside the fleet API and without authentication; the gate
below is why whoever reaches the public port can do neither. Neither Flower's executor nor its installer of
app dependencies is started.

Uses Flower's private application factory; flwr is pinned exactly for it.
"""

from __future__ import annotations

import hmac
import logging
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from msfl_common.errors import RunError
from msfl_common.processes import end_with_starter, python_command

SECRET_HEADER = "x-msfl-control"
FLEET = "/v1/fleet/"


@dataclass(frozen=True)
class LinkSettings:
    """Where the SuperLink listens and what it needs on disk."""

    bind: str
    port: int
    control_port: int
    ca_certificate: Path
    certificate: Path
    certificate_key: Path
    database: Path
    secret: Path

    def arguments(self) -> list[str]:
        """The command that runs it; it holds paths, never a secret."""
        values = [self.bind, self.port, self.control_port, self.ca_certificate, self.certificate]
        values += [self.certificate_key, self.database, self.secret]
        return python_command("msfl_server.federation_superlink", *values)


class Gate:
    """ASGI middleware: fleet calls from anywhere, all else on the control port and with the secret."""

    def __init__(self, app, control_port: int, secret: str) -> None:  # type: ignore[no-untyped-def]
        self._app = app
        self._control_port = control_port
        self._secret = secret.encode()

    async def __call__(self, scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        """Pass the request on, or answer 404."""
        if scope["type"] == "lifespan" or self._may_pass(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b""})

    def _may_pass(self, scope) -> bool:  # type: ignore[no-untyped-def]
        if scope["type"] != "http":
            return False
        if scope["path"].startswith(FLEET):
            return True
        on_control_port = scope["server"][1] == self._control_port
        given = dict(scope["headers"]).get(SECRET_HEADER.encode(), b"")
        return on_control_port and hmac.compare_digest(given, self._secret)


def serve(settings: LinkSettings) -> None:
    """Run the SuperLink until it is told to stop.

    Raises:
        RunError: a port is taken or may not be opened.
    """
    import uvicorn
    from flwr.common.constant import ISOLATION_MODE_PROCESS, TRANSPORT_TYPE_GRPC_RERE
    from flwr.superlink.auth_plugin import NoOpControlAuthnPlugin
    from flwr.superlink.cli.flower_superlink import SuperLinkLifespan
    from flwr.superlink.config_loader import SuperLinkLifespanConfig, load_control_authn_plugin
    from flwr.superlink.main import create_app

    from msfl_server.federation_lean import make_lean
    from msfl_server.federation_objects import ObjectCalls

    for left in settings.database.parent.glob(f"{settings.database.name}*"):
        if left.is_file():
            left.unlink()  # sites are authorised anew, and a run ends with the SuperLink: nothing in it is needed
    make_lean(settings.database)
    _strict()
    sockets = [_listen(settings.bind, settings.port), _listen("127.0.0.1", settings.control_port)]
    authentication = load_control_authn_plugin()
    assert isinstance(authentication, NoOpControlAuthnPlugin)
    config = SuperLinkLifespanConfig(
        control_address="",
        health_server_address=None,
        host="127.0.0.1",
        port=settings.control_port,
        insecure=False,
        certificates=(
            settings.ca_certificate.read_bytes(),
            settings.certificate.read_bytes(),
            settings.certificate_key.read_bytes(),
        ),
        superexec_auth_secret=None,
        authn_plugin=authentication,
        event_log_plugin=None,
        fleet_event_log_plugin=None,
        enable_event_log=False,
        artifact_provider=None,
        enable_supernode_auth=True,
        fleet_api_type=TRANSPORT_TYPE_GRPC_RERE,
        fleet_api_address=None,
        simulation=False,
        ssl_ca_certfile=str(settings.ca_certificate),
        ssl_certfile=str(settings.certificate),
        ssl_keyfile=str(settings.certificate_key),
        database=str(settings.database),
        isolation=ISOLATION_MODE_PROCESS,
        runtime_dependency_install=False,
    )
    flower = ObjectCalls(create_app(config, SuperLinkLifespan))
    gate = Gate(flower, settings.control_port, settings.secret.read_text().strip())
    server = uvicorn.Server(
        uvicorn.Config(
            gate,
            ssl_certfile=settings.certificate,
            ssl_keyfile=settings.certificate_key,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=2,
        )
    )
    server.run(sockets=sockets)


def _strict() -> None:
    """A node replies as itself only: Flower checks who signed a call, not whom the message in it names as sender."""
    from flwr.proto.fleet_pb2 import PushMessagesRequest, PushMessagesResponse
    from flwr.server.superlink.linkstate import LinkState
    from flwr.supercore.error import ApiErrorCode, FlowerError
    from flwr.superlink.servicer.fleet import fleet_handlers

    flowers_own = fleet_handlers.push_messages

    def push_messages(request: PushMessagesRequest, state: LinkState) -> PushMessagesResponse:
        if any(message.metadata.src_node_id != request.node.node_id for message in request.messages_list):
            raise FlowerError(ApiErrorCode.FLEET_RUN_STATUS_NOT_ALLOWED, "a message in another node's name")
        return flowers_own(request=request, state=state)

    fleet_handlers.push_messages = push_messages


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), backlog=256)
    except OSError as error:
        raise RunError(
            f"port {port} on {host} cannot be opened: {error.strerror}; free it or change server.yaml"
        ) from None


def main() -> None:
    """Entry point of the process."""
    os.environ["FLWR_LOG_LEVEL"] = "WARNING"
    end_with_starter()
    bind, port, control_port, *paths = sys.argv[1:]
    try:
        serve(LinkSettings(bind, int(port), int(control_port), *map(Path, paths)))
    except RunError as error:
        logging.getLogger(__name__).error("%s", error)
        sys.exit(1)


if __name__ == "__main__":
    main()
