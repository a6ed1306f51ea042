"""Strangers that share a proxy with the sites, or come from everywhere at once: who gets a place at the gate."""

from __future__ import annotations

import socket
import ssl
from contextlib import closing
from itertools import takewhile
from pathlib import Path

import pytest

from msfl_client.site.keys import load_key
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
