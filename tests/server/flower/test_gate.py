"""Calls, places and paces at the gate, without a network."""

from __future__ import annotations

import asyncio
import logging
import socket
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fastapi import HTTPException, Request
from flwr.proto.fleet_pb2 import PullMessagesRequest
from flwr.proto.node_pb2 import Node

from msfl_server.flower.control_port import SECRET_HEADER
from msfl_server.flower.gate import NODE, Gate, Pace, Registered, Site
from msfl_server.flower.listener import (
    _MOST_ADDRESSES,
    CONNECTIONS_OF_A_SITE,
    STRANGERS,
    STRANGERS_OF_AN_ADDRESS,
    Connection,
    Connections,
    _address,
)
from msfl_server.flower.sparing_log import LINES_A_MINUTE, SparingHandler


class Places(Connections):
    """Without the pace of handshakes."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[Connection] = []
        self.ends: list[socket.socket] = []

    def _may_open(self, _: str) -> bool:
        return True

    def come(self, address: str) -> Connection:
        ours, theirs = socket.socketpair()
        self.ends += [ours, theirs]
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
            connections.open(ours, f"10.1.{number // 250}.{number % 250}")
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


NODE_ID, CONTROL_PORT, SECRET = 7, 9000, "s3cret"
PUSH, PULL = "/v1/fleet/push-object", "/v1/fleet/pull-messages"


@pytest.fixture(scope="module")
def site_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP384R1())


def judged(key: ec.EllipticCurvePrivateKey, path: str, length: object = 5, age_s: float = 0, **more: str) -> int | None:
    """What the gate makes of a call that site 7 has signed so long ago: the site, or the status of a refusal."""
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    registered = Registered()
    registered.add(public, NODE_ID)
    gate = Gate(registered, CONTROL_PORT, SECRET, lambda node, num_bytes: (node, num_bytes) == (NODE_ID, 5))
    moment = (datetime.now(UTC) - timedelta(seconds=age_s)).isoformat().encode()
    headers = {
        b"content-length": str(length).encode(),
        b"flwr-public-key": b64encode(public),
        b"flwr-timestamp": moment,
        b"flwr-signature": b64encode(key.sign(moment, ec.ECDSA(SHA256()))),
    }
    headers |= {name.replace("_", "-").encode(): value.encode() for name, value in more.items()}
    found = gate.judge(b"POST", path, list(headers.items()), 443)
    return found.node_id if isinstance(found, Site) else found and int(found.split()[1])


def test_a_call_counts_while_its_time_is_now(site_key: ec.EllipticCurvePrivateKey) -> None:
    assert [judged(site_key, PUSH, age_s=age_s) for age_s in (0, 290, -3)] == 3 * [NODE_ID]
    assert [judged(site_key, PUSH, age_s=age_s) for age_s in (320, 86_400, -20)] == 3 * [401]


def test_a_call_carries_what_its_length_says_and_what_was_asked_for(site_key: ec.EllipticCurvePrivateKey) -> None:
    assert judged(site_key, PUSH, 6) == 413
    assert judged(site_key, PULL, 6) == NODE_ID
    assert judged(site_key, PULL, 2**20) == 413
    assert [judged(site_key, PULL, length) for length in ("", "-1", "+5", "5,5", "0" * 19)] == 5 * [411]
    assert judged(site_key, PULL, transfer_encoding="chunked") == 411


def test_the_control_port_opens_to_the_secret_alone() -> None:
    gate, control = Gate(Registered(), CONTROL_PORT, SECRET, lambda *_: True), "/v1/control/start-run"
    ours = [(SECRET_HEADER.encode(), SECRET.encode())]
    assert gate.judge(b"POST", control, ours, CONTROL_PORT) is None
    for path, headers, port in (
        (control, [], CONTROL_PORT),
        (control, [(SECRET_HEADER.encode(), b"guess")], CONTROL_PORT),
        (control, ours, 443),
        (control, ours, None),
        ("/v1/fleet/get-fab", ours, CONTROL_PORT),
    ):
        found = gate.judge(b"POST", path, headers, port)
        assert isinstance(found, bytes)
        assert found.split()[1] == b"404"


def test_a_removed_sites_key_is_a_strangers_and_nobody_speaks_for_another(
    site_key: ec.EllipticCurvePrivateKey,
) -> None:
    other = ec.generate_private_key(ec.SECP384R1())
    registered = Registered()
    for number, key in ((7, site_key), (8, other)):
        registered.add(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), number)

    def may(signed: int, about: int) -> bool:
        request = Request({"type": "http", NODE: signed})
        request.state.protobuf_request = PullMessagesRequest(node=Node(node_id=about))
        try:
            registered.authenticate(request)
        except HTTPException:
            return False
        return True

    assert (may(7, 7), may(7, 8), may(8, 8)) == (True, False, True)
    registered.remove(7)  # while its call comes in
    assert (may(7, 7), may(8, 8)) == (False, True)


def test_a_sites_calls_take_turns(site_key: ec.EllipticCurvePrivateKey) -> None:
    site, inside, most = Site(NODE_ID, site_key.public_key()), 0, 0

    async def call() -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0.001)
        inside -= 1

    async def all_at_once(path: str) -> int:
        nonlocal most
        most = 0
        await asyncio.gather(*(site.take_turn(path, call) for _ in range(20)))
        return most

    assert [asyncio.run(all_at_once(path)) for path in (PUSH, PULL)] == [2, 4]
