"""Whether a process of MSFL is at work, by the gRPC health protocol: the service, and the one probe for it.

The coordinator's server and a site's supervisor offer the service on a loopback port (`--health-port`). Docker,
compose, systemd and Kubernetes all ask with

    python -I -m msfl_common.system.health HOST:PORT

which exits with 0 when the process says that it serves, and with 1 when it does not or cannot be reached.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import HealthServicer

from msfl_common.errors import InputError

_WHOLE_PROCESS = ""  # the protocol's name for "all that this process offers"


class HealthService:
    """A running health service; it says "not serving" until told otherwise."""

    def __init__(self, server: grpc.Server, servicer: HealthServicer, port: int) -> None:
        self.port = port
        self._server = server
        self._servicer = servicer
        self.set_serving(False)

    def set_serving(self, serving: bool) -> None:
        """What the next probe is told."""
        status = health_pb2.HealthCheckResponse
        self._servicer.set(_WHOLE_PROCESS, status.SERVING if serving else status.NOT_SERVING)

    def stop(self) -> None:
        """End the service; the port is free afterwards."""
        self._server.stop(grace=None).wait()


def serve(port: int, host: str = "127.0.0.1") -> HealthService:
    """Start the health service.

    Args:
        port: TCP port; 0 picks a free one.
        host: address to listen on.

    Returns:
        The service, with the port that it listens on.

    Raises:
        InputError: the port cannot be had.
    """
    # Without `so_reuseport` a second process on the same port is an error, not a coin toss for every probe.
    server = grpc.server(ThreadPoolExecutor(2, thread_name_prefix="health"), options=[("grpc.so_reuseport", 0)])
    servicer = HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    try:
        bound = server.add_insecure_port(f"{host}:{port}")
    except RuntimeError:
        raise InputError(
            f"health port: cannot listen on {host}:{port}; another process has it, name a free one with --health-port"
        ) from None
    service = HealthService(server, servicer, bound)
    server.start()
    return service


@contextmanager
def health(port: int | None) -> Iterator[Callable[[bool], None]]:
    """A health service for as long as the block lasts, none without a port; gives what to tell it with.

    Raises:
        InputError: the port cannot be had.
    """
    if port is None:
        yield lambda _: None
        return
    service = serve(port)
    try:
        yield service.set_serving
    finally:
        service.stop()


def probe(address: str, timeout_s: float = 5.0) -> str:
    """Ask a health service.

    Args:
        address: HOST:PORT.
        timeout_s: seconds to wait for the answer.

    Returns:
        `SERVING`, `NOT_SERVING`, or the name of gRPC's error, such as `UNAVAILABLE` where nothing listens.
    """
    # A hospital's proxy settings must not carry a loopback probe off the machine.
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            reply = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service=_WHOLE_PROCESS), timeout=timeout_s
            )
        except grpc.RpcError as error:
            return str(error.code().name)
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status))


def main() -> int:
    """Probe the address on the command line."""
    parser = argparse.ArgumentParser(prog="python -I -m msfl_common.system.health", description=main.__doc__)
    parser.add_argument("address", metavar="HOST:PORT", help="where the process offers its health (--health-port)")
    parser.add_argument("--timeout", type=float, default=5.0, help="seconds to wait for the answer")
    arguments = parser.parse_args()
    status = probe(arguments.address, arguments.timeout)
    sys.stdout.write(f"{arguments.address}: {status}\n")
    return 0 if status == "SERVING" else 1


if __name__ == "__main__":
    sys.exit(main())
