"""Places and paces at the gate, without a network."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator

import pytest

from msfl_server.federation_gate import Pace
from msfl_server.federation_listener import (
    _MOST_ADDRESSES,
    CONNECTIONS_OF_A_SITE,
    STRANGERS,
    STRANGERS_OF_AN_ADDRESS,
    Connection,
    Connections,
    _address,
)
from msfl_server.sparing_log import LINES_A_MINUTE, SparingHandler


class Places(Connections):
    """Without the pace of handshakes."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[Connection] = []
        self.ends: list[socket.socket] = []

    def come(self, address: str) -> Connection:
        ours, theirs = socket.socketpair()
        self.ends += [ours, theirs]
        self._paces.clear()
        made = self.open(ours, address)
        assert made is not None
        self.made.append(made)
        return made

    def there(self, connection: Connection) -> bool:
        return any(connection in group for group in (*self._strangers.values(), *self._sites.values()))


@pytest.fixture
def places() -> Iterator[Places]:
    made = Places()
    yield made
    for end in made.ends:
        end.close()


def test_a_sites_connections_stand_beside_any_number_of_strangers(places: Places) -> None:
    site = places.come("10.0.0.1")
    site.proven(7)
    for number in range(3 * STRANGERS):
        places.come("10.0.0.1" if number % 2 else f"10.0.1.{number % 250}")
    assert places.there(site)
    assert sum(map(places.there, places.made)) == 1 + STRANGERS


def test_an_address_cannot_take_all_places(places: Places) -> None:
    for _ in range(2 * STRANGERS):
        places.come("10.0.0.1")
    assert sum(map(places.there, places.made)) == STRANGERS_OF_AN_ADDRESS
    others = [places.come(f"10.0.1.{number}") for number in range(100)]
    assert all(map(places.there, others)), "the address with the most has to give way"


def test_a_site_has_so_many(places: Places) -> None:
    theirs = [places.come("10.0.0.1") for _ in range(CONNECTIONS_OF_A_SITE + 5)]
    for connection in theirs:
        connection.proven(7)
        connection.proven(7)
    assert [places.there(connection) for connection in theirs[:5]] == 5 * [False]
    assert all(map(places.there, theirs[5:]))


def test_handshakes_have_a_pace_for_each_address() -> None:
    connections, (ours, theirs) = Connections(), socket.socketpair()
    with ours, theirs:
        taken = sum(connections.open(ours, "10.0.0.1") is not None for _ in range(1000))
        assert 50 <= taken <= 200
        assert connections.open(ours, "10.0.0.2") is not None
        for number in range(_MOST_ADDRESSES + 100):
            assert connections.open(ours, f"10.1.{number // 250}.{number % 250}") is not None
        assert len(connections._paces) <= _MOST_ADDRESSES + 1


def test_a_subscriber_of_ipv6_is_one_address() -> None:
    assert _address("2001:db8::1") == _address("2001:db8::ffff:1") != _address("2001:db8:0:1::1")
    assert _address("10.0.0.1") != _address("10.0.0.2")


def test_a_pace_saves_up_and_then_waits() -> None:
    pace = Pace(10.0, 1.0)
    waits = [pace.wait_s() for _ in range(30)]
    assert waits[:9] == 9 * [0.0]
    assert waits[-1] == pytest.approx(2.0, abs=0.2)


def test_a_log_keeps_so_many_lines_of_bounded_length(capsys: pytest.CaptureFixture[str]) -> None:
    handler = SparingHandler()
    handler.setStream(__import__("sys").stderr)
    for number in range(1000):
        handler.handle(logging.makeLogRecord({"levelno": 30, "levelname": "WARNING", "msg": f"{number}\n\x1b" * 9000}))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == LINES_A_MINUTE
    assert max(map(len, lines)) < 400
    handler._since -= 61
    handler.handle(logging.makeLogRecord({"levelno": 30, "levelname": "WARNING", "msg": "later"}))
    told, later = capsys.readouterr().err.splitlines()
    assert "940 lines were left out" in told
    assert "later" in later
