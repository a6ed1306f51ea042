"""Strangers that share a proxy with the sites, or come from everywhere at once: who gets a place at the gate."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import closing
from itertools import takewhile
from pathlib import Path
from unittest.mock import MagicMock

import pytest
from uvicorn import Config
from uvicorn.server import ServerState

from msfl_client.site.keys import load_key
from msfl_server.flower.gate import BAD_REQUEST
from msfl_server.flower.gate_protocol import GateProtocol
from msfl_server.flower.listener import (
    CONNECTIONS_OF_A_SITE,
    Connection,
    Connections,
)
from tests.attacks.floods import Flood
from tests.attacks.test_flood import HONEST, Target, target

__all__ = ["target"]

PROXY, SITE = "172.31.94.3", 7
CLOSED = socket.socket()
CLOSED.close()


def opened(connections: Connections, addresses: list[str]) -> list[Connection]:
    """Those of one connection from each address that got a place."""
    made = [connections.open(CLOSED, address) for address in addresses]
    return [one for one in made if one is not None]


def signed(key: Path, length: int) -> bytes:
    """The first lines of a call by a site."""
    return Flood(0, 0, load_key(key)).head("/v1/fleet/pull-messages", length)


def unsigned(length: int) -> bytes:
    return Flood(0, 0, None).head("/v1/fleet/pull-messages", length)


def statuses(target: Target, *calls: bytes) -> list[int]:
    """What is answered to calls one after the other on one connection, up to its end."""
    with closing(target.connect()) as stream, stream.makefile("rb") as answers:
        found = []
        for call in calls:
            try:
                stream.sendall(call)
                first, *lines = takewhile(str.strip, iter(lambda: answers.readline().decode(), ""))
            except (ConnectionError, ssl.SSLError, ValueError):
                break
            found.append(int(first.split()[1]))
            told = dict(line.lower().rstrip().split(": ", 1) for line in lines)
            answers.read(int(told.get("content-length", 0)))
        return found


def test_a_stranger_behind_the_sites_proxy_does_not_use_up_its_connections(target: Target) -> None:
    """Each of its calls ended a connection of the proxy's; as handshakes have a pace, half of the sites' got a 502."""
    site = signed(target.key(HONEST), 0)
    (answered,) = statuses(target, site)
    strange = unsigned(10) + b"x" * 10
    assert statuses(target, site, *[strange] * 60, site) == [answered, *[401] * 60, answered]
    assert statuses(target, strange, strange) == [401], "no site has called on it"
    assert statuses(target, site, unsigned(100_000), site) == [answered, 413], "what it carries is not waited for"
    chunked = Flood(0, 0, None).head("/v1/fleet/pull-messages", -1, "transfer-encoding: chunked")
    assert statuses(target, site, chunked, site) == [answered, 411]


@pytest.mark.parametrize("line", ["connection: close", "expect: 100-continue", "connection: upgrade\r\nupgrade: h2c"])
def test_a_refused_call_that_may_not_go_on_ends_the_connection(target: Target, line: str) -> None:
    """The parser takes no call after `close`: a site's next one stayed without an answer until its time was over."""
    site = signed(target.key(HONEST), 0)
    call = Flood(0, 0, None).head("/v1/fleet/pull-messages", 0, line)
    assert statuses(target, site, call, site)[1:] == [401]
    old = unsigned(0).replace(b"HTTP/1.1", b"HTTP/1.0")
    assert statuses(target, site, old, site)[1:] == [401]


def test_a_head_in_one_piece_with_another_call_has_its_bounds_too(target: Target) -> None:
    site, large = signed(target.key(HONEST), 0), Flood(0, 0, None).head("/", 0, *["x-a: " + "y" * 900] * 60)
    assert statuses(target, site, unsigned(0) + large, site)[1:] == [401, 431]


def refusing(transport: MagicMock) -> GateProtocol:
    """A connection on which a site has called and is answered; all further calls are refused."""
    (connection,) = opened(Connections(), [PROXY])
    connection.proven(SITE)
    transport.is_closing.return_value = False
    transport.get_extra_info.return_value = None

    async def answered(scope: object, receive: object, send: object) -> None:
        pass

    gate = MagicMock(**{"judge.return_value": BAD_REQUEST})
    config = Config(answered, interface="asgi3", ws="none", log_config=None)
    made = GateProtocol(config, ServerState(), {}, gate, connection)
    made.connection_made(transport)
    made.cycle = MagicMock(response_complete=True)
    return made


def test_answers_that_nobody_reads_do_not_pile_up() -> None:
    """Refusals leave the connection open only as long as its answers are taken."""

    async def says(transport: MagicMock) -> None:
        protocol = refusing(transport)
        protocol.data_received(unsigned(0))
        transport.close.assert_not_called()
        protocol.pause_writing()
        protocol.data_received(unsigned(0))
        transport.close.assert_called_once()
        protocol.connection_lost(None)

    asyncio.run(says(MagicMock()))


def test_two_refusals_in_one_piece_leave_no_end_for_a_later_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first's time to be idle ran on, and ended the connection within a call of a site's."""
    monkeypatch.setattr("msfl_server.flower.gate_protocol.IDLE_S", 0.1)

    async def says(transport: MagicMock) -> None:
        protocol = refusing(transport)
        protocol.data_received(unsigned(0) * 2)
        protocol.data_received(b"POST")
        await asyncio.sleep(0.3)
        transport.close.assert_not_called()
        protocol.data_received(unsigned(0)[4:])
        await asyncio.sleep(0.3)
        transport.close.assert_called_once()
        protocol.connection_lost(None)

    asyncio.run(says(MagicMock()))


def test_refusals_on_a_sites_connection_have_a_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msfl_server.flower.listener.REFUSALS_A_SECOND", 5.0)
    connections = Connections()
    (connection,) = opened(connections, [PROXY])
    assert not connection.may_stay()
    connection.proven(SITE)
    assert [connection.may_stay() for _ in range(9)].count(True) in (5, 6)


def test_strangers_from_a_thousand_addresses_have_one_pace_and_sites_their_own() -> None:
    """Fifty handshakes a second for each of a thousand took all of the SuperLink's time."""
    connections = Connections()
    opened(connections, ["198.51.100.1"])[0].proven(SITE)
    everywhere = [f"10.0.{number // 250}.{number % 250}" for number in range(1000)]
    assert len(opened(connections, everywhere)) <= 450
    assert len(opened(connections, ["198.51.100.1"] * CONNECTIONS_OF_A_SITE)) == CONNECTIONS_OF_A_SITE
