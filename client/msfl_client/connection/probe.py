"""One harmless request to the server, which tells four things at once.

With Flower's own client, the site asks to be activated with a heartbeat interval that no server accepts. That
changes nothing. A TLS error tells what is wrong with the certificate or the way; the answer's date tells the
clocks' difference; and only to a registered key does the server complain about the interval.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.proto.fleet_pb2 import ActivateNodeRequest
from flwr.supercore.error import FlowerError
from flwr.supercore.primitives.asymmetric import generate_key_pairs, public_key_to_bytes
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from msfl_client.connection.message_limits import BoundsError, guard
from msfl_client.connection.server_trust import GIVEN_UP

_TIMEOUT_S = 10.0
_NO_INTERVAL_S = -1.0
_EXPIRED = 10  # OpenSSL's numbers of faults of a certificate
_NOT_YET_VALID = 9
_WRONG_HOST = (62, 64)


@dataclass(frozen=True)
class Answer:
    """What came back from the server.

    Attributes:
        status: HTTP status.
        code: Flower's error code, or None when the answer is not Flower's.
        ahead_s: this machine's clock less the server's, or None when the server does not tell.
        certificate_days: days until the server's certificate expires.
    """

    status: int
    code: int | None
    ahead_s: float | None
    certificate_days: int


class NoAnswerError(Exception):
    """The server could not be reached, or not be trusted; says what was found and the fix."""

    def __init__(self, text: str, fix: str) -> None:
        super().__init__(text)
        self.text = text
        self.fix = fix


def ask_server(address: str, trust: ssl.SSLContext, key: ec.EllipticCurvePrivateKey | None) -> Answer:
    """Send the one request; without the site's key it is signed by a key that nobody knows.

    Raises:
        NoAnswerError: the server could not be reached, or not be trusted.
    """
    key = key or generate_key_pairs()[0]
    request = ActivateNodeRequest(public_key=public_key_to_bytes(key.public_key()), heartbeat_interval=_NO_INTERVAL_S)
    witness = _Witness()
    client = FleetHttpClient(
        f"https://{address}",
        interceptors=[NodeAuthHttpInterceptor(key, key.public_key()), witness],
        verify=trust,
        timeout=_TIMEOUT_S,
    )
    guard(client, trust)
    with client:
        try:
            client.ActivateNode(request)
        except httpx.HTTPStatusError as error:
            assert witness.expires is not None, "an answer came, so TLS stood"
            return _read_answer(error.response, witness.expires)
        except httpx.HTTPError as error:
            raise _why_no_answer(error, address) from None
        except (ValueError, BoundsError):  # an answer that is not Flower's
            pass
    raise NoAnswerError(f"{address} answers, but not as a study's server", "ask the coordinator for the address")


def _read_answer(response: httpx.Response, certificate_expires: datetime) -> Answer:
    date = response.headers.get("date")
    ahead_s = None
    if date is not None:
        sent = datetime.now(UTC) - response.elapsed / 2
        # The date is cut to seconds, and a server may keep it for one: on average it is a second old.
        ahead_s = (sent - parsedate_to_datetime(date)).total_seconds() - 1.0
    fault = FlowerError.from_json(response.text)
    return Answer(
        status=response.status_code,
        code=fault.code if fault else None,
        ahead_s=ahead_s,
        certificate_days=(certificate_expires - datetime.now(UTC)).days,
    )


def _why_no_answer(error: httpx.HTTPError, address: str) -> NoAnswerError:
    """The row for a request that failed before an answer came."""
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _why_not_trusted(cause.verify_code, address)
        if isinstance(cause, ssl.SSLError):
            text = f"{address}: no TLS connection ({cause.reason or cause})"
            return NoAnswerError(text, "ask the coordinator for the port; a proxy in between may answer instead")
        if isinstance(cause, socket.gaierror):
            return NoAnswerError(f"{address}: no such host", "see that this machine's DNS knows the name")
        if isinstance(cause, ConnectionRefusedError):
            text = f"{address}: the machine is there, but nothing answers on this port"
            return NoAnswerError(text, "ask the coordinator whether the server runs: `msfl-server status`")
    if isinstance(error, httpx.TimeoutException):
        fix = "allow outgoing connections to this address in the firewall; a proxy is named by HTTPS_PROXY"
        return NoAnswerError(f"{address}: no answer within {_TIMEOUT_S:.0f} s", fix)
    text = f"{address}: no answer: {' '.join(str(causes[-1]).split()) or type(causes[-1]).__name__}"
    return NoAnswerError(text, "see whether firewall and proxy (HTTPS_PROXY) let this machine reach the address")


def _why_not_trusted(verify_code: int, address: str) -> NoAnswerError:
    if verify_code in _WRONG_HOST:
        host = address.rpartition(":")[0]
        fix = f"tell the coordinator to add {host} to `hosts:` of server.yaml, and `msfl-server renew-certificate`"
        return NoAnswerError(f"{address}: the server's certificate is not good for this host", fix)
    if verify_code == _EXPIRED:
        fix = "tell the coordinator to run `msfl-server renew-certificate`; this site needs nothing new"
        return NoAnswerError(f"{address}: the server's certificate has expired", fix)
    if verify_code == _NOT_YET_VALID:
        return NoAnswerError(f"{address}: the server's certificate is not valid yet", "set this machine's clock")
    if verify_code == GIVEN_UP:
        fix = "do not continue: ask the coordinator whether its server was started again since, or who answers there"
        return NoAnswerError(f"{address}: the server shows a certificate that the coordinator has given up", fix)
    text = f"{address}: the server's certificate was not signed by the kit's authority"
    return NoAnswerError(text, "do not continue: ask the coordinator whether a new kit was made, or who answers there")


class _Witness:
    """An interceptor that keeps the expiry of the certificate that the server shows."""

    expires: datetime | None = None

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        """Have httpx tell of each step of the connection."""
        context.request.extensions["trace"] = self._look
        return call_next(context)

    def _look(self, event: str, details: dict[str, Any]) -> None:
        if event.endswith("start_tls.complete"):  # the server's own, or through a proxy's tunnel
            shown = details["return_value"].get_extra_info("ssl_object").getpeercert()
            self.expires = datetime.fromtimestamp(ssl.cert_time_to_seconds(shown["notAfter"]), UTC)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what led to it, outermost first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
