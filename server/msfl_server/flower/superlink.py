"""Flower's SuperLink as the coordinator runs it: one process, two sockets, no code of others.

    public port    TLS, answers `/v1/fleet/` only: what sites need, each call signed with a registered key
    control port   TLS on 127.0.0.1, answers everything to whoever knows the study's secret

Flower serves submitting runs and registering nodes beside the fleet API and without authentication; the gate
is why whoever reaches the public port can do neither. Neither Flower's executor nor its installer of
app dependencies is started.

Uses Flower's private application factory; flwr is pinned exactly for it.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from msfl_common.errors import RunError
from msfl_common.system.processes import end_with_starter, python_command
from msfl_server.flower.object_folder import remove_traces
from msfl_server.flower.sparing_log import log_sparingly

log = logging.getLogger(__name__)


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
        return python_command("msfl_server.flower.superlink", *values)


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

    from msfl_server.flower.calls import Calls
    from msfl_server.flower.gate import Gate
    from msfl_server.flower.gate_protocol import GateProtocol
    from msfl_server.flower.listener import Connection, GateServer, raise_file_limit
    from msfl_server.flower.object_calls import ObjectCalls
    from msfl_server.flower.state import make_strict
    from msfl_server.flower.superlink_patches import make_lean

    log_sparingly("flwr", "uvicorn", "uvicorn.error")
    sockets = [_listen(settings.bind, settings.port), _listen("127.0.0.1", settings.control_port)]
    remove_traces(settings.database)
    registered, parcels = make_lean(settings.database)
    make_strict(parcels)
    log.warning("up to %d files and connections may be open at once", raise_file_limit())
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
    calls = Calls(ObjectCalls(create_app(config, SuperLinkLifespan)), parcels)
    gate = Gate(registered, settings.control_port, settings.secret.read_text().strip(), parcels.expects)
    served = uvicorn.Config(
        calls,
        ssl_certfile=settings.certificate,
        ssl_keyfile=settings.certificate_key,
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=2,
    )

    def make(state: uvicorn.server.ServerState, app_state: dict[str, object], connection: Connection) -> GateProtocol:
        return GateProtocol(served, state, app_state, gate, connection)

    try:
        GateServer(served, make).run(sockets=sockets)
    finally:
        remove_traces(settings.database)


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
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # what uvicorn raises once it has shut down
    end_with_starter()
    bind, port, control_port, *paths = sys.argv[1:]
    try:
        serve(LinkSettings(bind, int(port), int(control_port), *map(Path, paths)))
    except RunError as error:
        log.error("%s", error)
        sys.exit(1)


if __name__ == "__main__":
    main()
