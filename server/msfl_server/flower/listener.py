"""Connections at the gate: how many there may be, of whom, and which has to go when a new one comes.

A connection on which a site has made a signed call is the site's, and no stranger's can take its place. All others
share a fixed number of places, each address no more than most of them; when these are taken, a new connection takes
the place of a random one of the address that has the most, so that nobody can hold them all. TLS handshakes, which
cost more than a refusal, have a pace for each address, and one for all from which no site has called. An address from
which one has, such as a proxy's, shares nothing with strangers elsewhere; those behind the same proxy are refused
without an end of its connections, and so without a handshake.
"""

from __future__ import annotations

import asyncio
import random
import resource
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address
from typing import Any

from uvicorn import Config, Server
from uvicorn.server import ServerState

from msfl_common.system.memory import trim_memory
from msfl_server.flower.gate import Pace

STRANGERS = 256  # connections of which nobody knows yet whose they are
STRANGERS_OF_AN_ADDRESS = 192
CONNECTIONS_OF_A_SITE = 16
HANDSHAKES_A_SECOND = 50.0  # of one address
HANDSHAKES_OF_STRANGERS = 200.0  # a second, of all addresses from which no site has called
REFUSALS_A_SECOND = 1000.0  # of an address, that leave a connection of sites open; nginx lets strangers call as often
HANDSHAKE_S, SHUTDOWN_S = 10.0, 1.0
_MOST_ADDRESSES = 4096  # whose pace is remembered
_FILES = 65_536
_MANY = 20  # connections
_TRIM_TICKS = 20  # tenths of a second between two looks for memory to give back
_PAUSE_S = 0.05  # when the machine has no file or memory for one more connection

Make = Callable[["Connection"], asyncio.Protocol]


class Connection:
    """One connection, from its first byte to its end."""

    def __init__(self, connections: Connections, plain: socket.socket, address: str) -> None:
        self.transport: asyncio.Transport | None = None
        self.address = address
        self.owner: int | None = None  # the node that it is known to be of
        self._connections = connections
        self._plain = plain

    def proven(self, node_id: int | None) -> None:
        """A signed call came in on it, or one of the coordinator's (None)."""
        self._connections.proven(self, 0 if node_id is None else node_id)

    def abort(self) -> None:
        """End it now."""
        self.close()
        if self.transport is not None:
            self.transport.abort()
        else:
            with suppress(OSError):
                self._plain.shutdown(socket.SHUT_RDWR)

    def may_stay(self) -> bool:
        """Whether it stays open after a refusal."""
        return self._connections.may_stay(self)

    def close(self) -> None:
        """It is counted no more."""
        self._connections.forget(self)


class Connections:
    """All that are open."""

    def __init__(self) -> None:
        self._strangers: dict[str, list[Connection]] = {}
        self._sites: dict[int, list[Connection]] = {}
        self.num_ended = 0
        self._paces: dict[str, Pace] = {}
        self._pace_of_strangers = Pace(HANDSHAKES_OF_STRANGERS, 2.0)
        self._paces_of_sites: dict[str, Pace] = {}  # of addresses from which a site has called
        self._paces_of_refusals: dict[str, Pace] = {}

    def open(self, plain: socket.socket, address: str) -> Connection | None:
        """A place for a new one; None when its address opens too many a second."""
        if not self._may_open(address):
            return None
        if len(self._strangers.get(address, ())) >= STRANGERS_OF_AN_ADDRESS:
            random.choice(self._strangers[address]).abort()
        elif sum(map(len, self._strangers.values())) >= STRANGERS:
            random.choice(max(self._strangers.values(), key=len)).abort()
        made = Connection(self, plain, address)
        self._strangers.setdefault(address, []).append(made)
        return made

    def _may_open(self, address: str) -> bool:
        """Whether the time has come for one more TLS handshake with it."""
        if (pace := self._paces_of_sites.get(address)) is not None:
            return pace.takes()
        if len(self._paces) > _MOST_ADDRESSES:
            self._paces.clear()
        of_it = self._paces.setdefault(address, Pace(HANDSHAKES_A_SECOND, 2.0))
        return of_it.takes() and self._pace_of_strangers.takes()

    def proven(self, connection: Connection, owner: int) -> None:
        """It is a node's; 0 stands for the coordinator."""
        if connection.owner == owner:
            return
        if connection.address not in self._paces_of_sites:
            if len(self._paces_of_sites) > _MOST_ADDRESSES:
                self._paces_of_sites.clear()
            self._paces_of_sites[connection.address] = Pace(HANDSHAKES_A_SECOND, 2.0)
        self.forget(connection)
        connection.owner = owner
        theirs = self._sites.setdefault(owner, [])
        theirs.append(connection)
        if owner and len(theirs) > CONNECTIONS_OF_A_SITE:
            theirs[0].abort()

    def may_stay(self, connection: Connection) -> bool:
        """Whether a refusal leaves it open: a site has called on it, and its address is not refused too often."""
        if not connection.owner:
            return False
        if len(self._paces_of_refusals) > _MOST_ADDRESSES:
            self._paces_of_refusals.clear()
        return self._paces_of_refusals.setdefault(connection.address, Pace(REFUSALS_A_SECOND, 1.0)).takes()

    def forget(self, connection: Connection) -> None:
        """It is over, or changes its place."""
        owner = connection.owner
        groups: dict[object, list[Connection]] = self._strangers if owner is None else self._sites  # type: ignore[assignment]
        name = connection.address if owner is None else owner
        if connection in groups.get(name, ()):
            self.num_ended += 1
            groups[name].remove(connection)
            if not groups[name]:
                del groups[name]


class Listener:
    """Takes connections from a listening socket; stands where uvicorn has asyncio's server."""

    def __init__(self, listening: socket.socket, connections: Connections, make: Make, context: ssl.SSLContext) -> None:
        self._socket = listening
        self._socket.setblocking(False)
        self._connections = connections
        self._make = make
        self._context = context
        self._opening: set[asyncio.Task[None]] = set()
        self._task = asyncio.get_running_loop().create_task(self._accept())

    def close(self) -> None:
        """Take no more."""
        self._task.cancel()
        for task in self._opening:
            task.cancel()

    async def wait_closed(self) -> None:
        """Until no more is taken."""
        await asyncio.gather(self._task, *self._opening, return_exceptions=True)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                plain, peer = await loop.sock_accept(self._socket)
            except OSError:
                await asyncio.sleep(_PAUSE_S)
                continue
            connection = self._connections.open(plain, _address(peer[0]))
            if connection is None:
                plain.close()
                await asyncio.sleep(0)  # others' turn: the next one may be waiting already
                continue
            task = loop.create_task(self._open(plain, connection))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _open(self, plain: socket.socket, connection: Connection) -> None:
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: self._make(connection),
                plain,
                ssl=self._context,
                ssl_handshake_timeout=HANDSHAKE_S,
                ssl_shutdown_timeout=SHUTDOWN_S,
            )
        except (OSError, asyncio.CancelledError):  # no TLS, or not in time
            connection.close()
            plain.close()


class GateServer(Server):
    """uvicorn's server with our way of taking connections."""

    def __init__(self, config: Config, make: Callable[[ServerState, dict[str, object], Connection], asyncio.Protocol]):
        super().__init__(config)
        self._make = make
        self._connections: list[Connections] = []
        self._num_trimmed = 0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, then listen."""
        asyncio.get_running_loop().set_exception_handler(_on_fault)
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            self.should_exit = True
            return
        context = self.config.ssl
        assert context is not None
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION

        def make(connection: Connection) -> asyncio.Protocol:
            return self._make(self.server_state, self.lifespan.state, connection)

        self._connections = [Connections() for _ in sockets or []]
        self.servers = [
            Listener(one, connections, make, context)  # type: ignore[misc]
            for one, connections in zip(sockets or [], self._connections, strict=True)
        ]
        self.started = True

    async def on_tick(self, counter: int) -> bool:
        """Each tenth of a second; what connections that have ended took of memory goes back to the system."""
        num_ended = sum(one.num_ended for one in self._connections)
        if counter % _TRIM_TICKS == 0 and num_ended >= self._num_trimmed + _MANY:
            self._num_trimmed = num_ended
            trim_memory()
        return await super().on_tick(counter)


def _on_fault(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Strangers may break as many connections as they like; all else is a fault of ours, and gets its line."""
    if isinstance(context.get("exception"), Exception) and not isinstance(context["exception"], OSError):
        loop.default_exception_handler(context)


def raise_file_limit() -> int:
    """As many open files as this account may have, within reason; how many these are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return max(soft, wanted)


def _address(peer: str) -> str:
    """Who counts as one: an IPv4 address, or what a subscriber has of IPv6."""
    address = ip_address(peer.partition("%")[0])
    return peer if address.version == 4 else str(int(address) >> 64)
