"""Strangers that share a proxy with the sites, or come from everywhere at once: who gets a place at the gate."""

from __future__ import annotations

import socket

from msfl_server.federation_listener import (
    CONNECTIONS_OF_A_SITE,
    Connection,
    Connections,
)

PROXY, SITE = "172.31.94.3", 7
CLOSED = socket.socket()
CLOSED.close()


def opened(connections: Connections, addresses: list[str]) -> list[Connection]:
    """Those of one connection from each address that got a place."""
    made = [connections.open(CLOSED, address) for address in addresses]
    return [one for one in made if one is not None]


def test_a_stranger_behind_the_sites_proxy_does_not_use_up_its_connections() -> None:
    """Each of its calls is refused, which ends a connection of the proxy's; half of the sites' calls got a 502."""
    connections = Connections()
    opened(connections, [PROXY])[0].proven(SITE)
    for _ in range(500):  # what nginx lets it call in two seconds and a half
        opened(connections, [PROXY])[0].close()
    assert len(opened(connections, [PROXY])) == 1
    assert len(opened(Connections(), [PROXY] * 500)) <= 120, "no site calls from there"


def test_strangers_from_a_thousand_addresses_have_one_pace_and_sites_their_own() -> None:
    """Fifty handshakes a second for each of a thousand took all of the SuperLink's time."""
    connections = Connections()
    opened(connections, ["198.51.100.1"])[0].proven(SITE)
    everywhere = [f"10.0.{number // 250}.{number % 250}" for number in range(1000)]
    assert len(opened(connections, everywhere)) <= 450
    assert len(opened(connections, ["198.51.100.1"] * CONNECTIONS_OF_A_SITE)) == CONNECTIONS_OF_A_SITE
