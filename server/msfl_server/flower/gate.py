"""Who may make which call, decided from a call's first lines alone: before a byte of what it carries is read.

    a site       POST /v1/fleet/NAME, its length told, the time signed with a registered key; then its own turn
    coordinator  anything, on the control port and with the study's secret
    a stranger   one of a few constants of bytes, and the connection closes

Flower reads a call whole, parses it and only then asks who it is from. Here that is asked first, and Flower believes
what was found; a signature is checked once. Nothing is logged of a call that is refused.

Uses Flower's private parts by name; flwr is pinned exactly for it.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from fastapi import HTTPException, Request
from flwr.common.constant import (
    FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE,
    SYSTEM_TIME_TOLERANCE,
    TIMESTAMP_HEADER,
    TIMESTAMP_TOLERANCE,
)
from flwr.proto.fleet_pb2 import ActivateNodeRequest
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.date import now
from flwr.supercore.error import ApiErrorCode
from flwr.supercore.error.catalog import API_ERROR_MAP
from flwr.supercore.primitives.asymmetric import bytes_to_public_key, verify_signature

from msfl_server.flower.control_port import SECRET_HEADER

FLEET = "/v1/fleet/"
MOST_OBJECT_BYTES = FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE + 2**20  # one piece of an array, and what names it
_SMALL, _TREE = 16 * 2**10, 256 * 2**10
# What sites call, and how many bytes each call carries at most. A reply's head names its objects, 70 bytes each.
CALLS = {
    FLEET + "activate-node": _SMALL,
    FLEET + "deactivate-node": _SMALL,
    FLEET + "send-node-heartbeat": _SMALL,
    FLEET + "pull-messages": _SMALL,
    FLEET + "get-run": _SMALL,
    FLEET + "confirm-message-received": _SMALL,
    FLEET + "pull-object": _SMALL,
    FLEET + "push-messages": _TREE,
    FLEET + "push-object": MOST_OBJECT_BYTES,
}
_OBJECTS = (FLEET + "push-object", FLEET + "pull-object")
# In a call's scope: the node whose key signed it, and whose turn it is; None for the coordinator.
NODE, SITE = "msfl.node", "msfl.site"
# Of one site. An honest one calls a few times a second, and a hundred times while it sends a model.
_OBJECTS_AT_ONCE, _CALLS_AT_ONCE = 2, 4
_OBJECTS_A_SECOND, _CALLS_A_SECOND = 200.0, 20.0
_BURST_S = 10.0  # how many seconds' calls may come at once after a pause


def _constant(status: HTTPStatus, content: bytes = b"", kind: str = "text/plain") -> bytes:
    head = f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: {kind}\r\ncontent-length: {len(content)}\r\n"
    return head.encode() + b"connection: close\r\n\r\n" + content


def _unknown_key() -> bytes:
    """Flower's answer to a key that nobody registered, byte for byte."""
    spec = API_ERROR_MAP[ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED]
    told = {"code": int(ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED), "detail": spec.public_message}
    return _constant(HTTPStatus(spec.http_status_code), json.dumps(told).encode(), "application/json")


BAD_REQUEST = _constant(HTTPStatus.BAD_REQUEST)
TOO_MANY_HEADERS = _constant(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
_NOT_FOUND = _constant(HTTPStatus.NOT_FOUND)
_UNAUTHORIZED = _constant(HTTPStatus.UNAUTHORIZED)
_LENGTH_REQUIRED = _constant(HTTPStatus.LENGTH_REQUIRED)
_TOO_LARGE = _constant(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
_UNKNOWN_KEY = _unknown_key()


class Pace:
    """So many a second on average, after a pause as many as fit into `burst_s`."""

    def __init__(self, per_second: float, burst_s: float) -> None:
        self._step_s = 1 / per_second
        self._burst_s = burst_s
        self._due = 0.0

    def wait_s(self) -> float:
        """Take one; how long it has to wait for its time."""
        moment = time.monotonic()
        self._due = max(self._due, moment - self._burst_s) + self._step_s
        return max(0.0, self._due - moment)

    def takes(self) -> bool:
        """Take one if its time has come."""
        moment = time.monotonic()
        due = max(self._due, moment - self._burst_s) + self._step_s
        if due > moment:
            return False
        self._due = due
        return True


@dataclass
class Site:
    """A registered key, and the turns of whoever has it: one site's calls never stand in another's way."""

    node_id: int
    key: EllipticCurvePublicKey
    _objects: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_OBJECTS_AT_ONCE))
    _calls: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_CALLS_AT_ONCE))
    _object_pace: Pace = field(default_factory=lambda: Pace(_OBJECTS_A_SECOND, _BURST_S))
    _call_pace: Pace = field(default_factory=lambda: Pace(_CALLS_A_SECOND, _BURST_S))

    async def take_turn(self, path: str, call: Callable[[], Any]) -> None:
        """Make a call when the site's own earlier ones leave room; nothing of it is read before."""
        is_object = path in _OBJECTS
        async with self._objects if is_object else self._calls:
            wait_s = (self._object_pace if is_object else self._call_pace).wait_s()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            await call()


class Registered:
    """The sites' keys, as the SuperLink's register has them."""

    def __init__(self) -> None:
        self._sites: dict[bytes, Site] = {}  # by the key as it stands in a call's header

    def add(self, public_key: bytes, node_id: int) -> None:
        """A site may connect from now on."""
        self._sites[b64encode(public_key)] = Site(node_id, bytes_to_public_key(public_key))

    def remove(self, node_id: int) -> None:
        """None of its calls is answered any more."""
        self._sites = {header: site for header, site in self._sites.items() if site.node_id != node_id}

    def by_header(self, value: bytes) -> Site | None:
        """Whose key stands in a header."""
        return self._sites.get(value)

    def authenticate(self, request: Request) -> None:
        """In Flower's place, once a call is whole: it speaks of the node whose key signed it, which may call still.

        Raises:
            HTTPException: of another, or of one that was removed while the call came in.
        """
        told = request.state.protobuf_request
        if isinstance(told, ActivateNodeRequest):
            site = self.by_header(b64encode(told.public_key))
            node_id = None if site is None else site.node_id
        else:
            node_id = told.node.node_id if hasattr(told, "node") else told.node_id
        may_call = {site.node_id for site in self._sites.values()}
        if node_id not in may_call or request.scope.get(NODE) != node_id:
            raise HTTPException(HTTPStatus.UNAUTHORIZED)


class Gate:
    """Tells the calls to answer from those to refuse."""

    def __init__(
        self, registered: Registered, control_port: int, secret: str, expects: Callable[[int, int], bool]
    ) -> None:
        """Let sites in by their keys, the coordinator by its secret; `expects` says if a node may send so much."""
        self._registered = registered
        self._control_port = control_port
        self._secret = secret.encode()
        self._expects = expects

    def judge(
        self, method: bytes, path: str, headers: Sequence[tuple[bytes, bytes]], port: int | None
    ) -> Site | bytes | None:
        """The site that a call is from, None for the coordinator, or the answer to a stranger."""
        told = dict(headers)
        if path not in CALLS:
            given = told.get(SECRET_HEADER.encode(), b"")
            ours = port == self._control_port and not path.startswith(FLEET)
            return None if ours and hmac.compare_digest(given, self._secret) else _NOT_FOUND
        if method != b"POST":
            return _NOT_FOUND
        length = told.get(b"content-length", b"")
        if not length.isdigit() or len(length) > 18 or b"transfer-encoding" in told:
            return _LENGTH_REQUIRED
        if int(length) > CALLS[path]:
            return _TOO_LARGE
        site = self._registered.by_header(told.get(FLEET_HTTP_PUBLIC_KEY_HEADER.encode(), b""))
        if site is None:
            return _UNKNOWN_KEY if path.endswith("/activate-node") else _UNAUTHORIZED
        if not _is_signed(site.key, told):
            return _UNAUTHORIZED
        if path.endswith("/push-object") and not self._expects(site.node_id, int(length)):
            return _TOO_LARGE
        return site


def _is_signed(key: EllipticCurvePublicKey, told: dict[bytes, bytes]) -> bool:
    """Whether the time in the headers is now, and signed with the key."""
    try:
        moment = told[TIMESTAMP_HEADER.encode()].decode("ascii")
        signature = b64decode(told[FLEET_HTTP_SIGNATURE_HEADER.encode()], validate=True)
        age_s = (now() - datetime.fromisoformat(moment)).total_seconds()
        in_time = -SYSTEM_TIME_TOLERANCE < age_s < TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE
        return in_time and verify_signature(key, moment.encode("ascii"), signature)
    except (KeyError, ValueError, TypeError, InvalidSignature):
        return False
