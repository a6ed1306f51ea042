"""Whether a site can take part: its machine, its key, its joining kit and the way to the server.

One harmless request tells four things at once, with Flower's own client: the site asks to be activated with a
heartbeat interval that no server accepts. That changes nothing. A TLS error tells what is wrong with the
certificate or the way; the answer's date tells the clocks' difference; and only to a registered key does the
server complain about the interval.
"""

from __future__ import annotations

import os
import shutil
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Literal

import httpx
import torch
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.proto.fleet_pb2 import ActivateNodeRequest
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.primitives.asymmetric import generate_key_pairs, public_key_to_bytes
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from msfl_client.egress import check_request
from msfl_client.keys import load_key, public_key_file
from msfl_client.training import pick_device
from msfl_common import __version__
from msfl_common.config import SiteConfig, load_study
from msfl_common.errors import InputError, RefusedError
from msfl_common.kit import CA_FILE, STUDY_FILE, Kit, load_kit, read_certificate

Level = Literal["pass", "warn", "fail", "skip"]

_MIN_FREE_GB = 10
_TIMEOUT_S = 10.0
_WARN_DAYS = 30
_NO_INTERVAL_S = -1.0
# Flower refuses a request that was signed over 305 s ago, or over 5 s ahead of the server's clock. An answer's
# date is whole seconds.
_BEHIND_WARN_S, _BEHIND_FAIL_S = 60.0, 240.0
_AHEAD_WARN_S, _AHEAD_FAIL_S = 2.0, 4.0
_EXPIRED = 10  # OpenSSL's numbers of faults of a certificate
_NOT_YET_VALID = 9
_WRONG_HOST = (62, 64)


@dataclass(frozen=True)
class Row:
    """One result.

    Attributes:
        name: what was looked at.
        level: "fail" keeps the site from taking part; "skip" could not be looked at before another row passes.
        text: what was found.
        fix: what to do about it; empty when there is nothing to do.
    """

    name: str
    level: Level
    text: str
    fix: str = ""


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


class _NoAnswerError(Exception):
    """The server could not be reached, or not be trusted: the row that says so."""

    def __init__(self, text: str, fix: str) -> None:
        super().__init__(text)
        self.row = Row("server", "fail", text, fix)


def check_connection(site: SiteConfig) -> list[Row]:
    """Look at the machine, the key, the kit and the server, in this order; nothing is changed anywhere."""
    rows = [_device(site), _disk(site.state)]
    key_row, key = _key(site.key)
    kit_row, kit = _kit(site)
    rows += [key_row, kit_row]
    if kit is None:
        reason = "not looked at: needs the kit"
        return rows + [Row(name, "skip", reason) for name in ("server", "clock", "authenticated", "study")]
    return [*rows, *_server_rows(kit, site, key), _study(site)]


def _device(site: SiteConfig) -> Row:
    try:
        devices = (pick_device(site.device),)
    except RefusedError as error:
        return Row("device", "fail", error.detail, "correct `device:` in the site file")
    return Row("device", "pass", "; ".join(map(_describe, devices)))


def _describe(device: torch.device) -> str:
    """What a device is, and its memory."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return f"{torch.cuda.get_device_name(device)}: {_gb(free)} of {_gb(total)} GB free"
    kind = "Apple GPU" if device.type == "mps" else f"CPU, {os.cpu_count()} cores"
    return f"{kind}: {_gb(os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES'))} GB memory"


def _disk(state: Path) -> Row:
    place = next(folder for folder in (state, *state.parents) if folder.exists())
    if not place.is_dir() or not os.access(place, os.W_OK):
        return Row("disk", "fail", f"{place}: cannot be written", "give this account access, or correct `state:`")
    free = shutil.disk_usage(place).free
    text = f"{_gb(free)} GB free for {state}"
    if free < _MIN_FREE_GB * 10**9:
        return Row("disk", "warn", text, f"free some space: {_MIN_FREE_GB} GB are a comfortable start")
    return Row("disk", "pass", text)


def _key(path: Path) -> tuple[Row, ec.EllipticCurvePrivateKey | None]:
    try:
        key = load_key(path)
    except InputError as error:
        return Row("key", "fail", *_text_and_fix(error)), None
    return Row("key", "pass", f"{path}, for this account alone"), key


def _kit(site: SiteConfig) -> tuple[Row, Kit | None]:
    try:
        kit = load_kit(site.kit)
    except InputError as error:
        return Row("kit", "fail", *_text_and_fix(error)), None
    if kit.site != site.name:
        text = f"made for site {kit.site}, but this is {site.name}"
        return Row("kit", "fail", text, "correct `name:`, or ask the coordinator for this site's kit"), kit
    expires = read_certificate(site.kit / CA_FILE).not_valid_after_utc
    text = f"study {kit.study}, authority valid until {expires:%Y-%m-%d}"
    if (expires - datetime.now(UTC)).days < _WARN_DAYS:
        return Row("kit", "warn", text, "ask the coordinator for a new kit"), kit
    if kit.msfl_version != __version__:
        text += f"; made by MSFL {kit.msfl_version}, installed is {__version__}"
        return Row("kit", "warn", text, f"install MSFL {kit.msfl_version}"), kit
    return Row("kit", "pass", text), kit


def _study(site: SiteConfig) -> Row:
    try:
        study = load_study(site.kit / STUDY_FILE)
        check_request(site.policy, study, round_number=0)
    except InputError as error:
        return Row("study", "fail", str(error), f"install the coordinator's version of MSFL; here is {__version__}")
    except RefusedError as error:
        return Row("study", "fail", f"goes beyond this site's policy: {error.detail}", "change `policy:`, or decline")
    return Row("study", "pass", f"{study.name}: {study.task}, {study.rounds.num_rounds} rounds, within the policy")


def _server_rows(kit: Kit, site: SiteConfig, key: ec.EllipticCurvePrivateKey | None) -> Iterator[Row]:
    try:
        answer = _ask(kit.address, site.kit / CA_FILE, key)
    except _NoAnswerError as error:
        yield error.row
        yield from (Row(name, "skip", "not looked at: needs the server") for name in ("clock", "authenticated"))
        return
    yield _server(kit.address, answer)
    yield _clock(answer.ahead_s)
    yield _authenticated(answer, key, site)


def _server(address: str, answer: Answer) -> Row:
    if answer.status != httpx.codes.UNAUTHORIZED and answer.code is None:
        fix = "ask the coordinator whether the server runs, and where; a proxy in between may answer instead"
        return Row("server", "fail", f"{address} answers, but not as a study's server: HTTP {answer.status}", fix)
    text = f"{address} answers over TLS; its certificate is valid for {answer.certificate_days} days"
    if answer.certificate_days < _WARN_DAYS:
        return Row("server", "warn", text, "tell the coordinator to run `msfl-server renew-certificate`")
    return Row("server", "pass", text)


def _clock(ahead_s: float | None) -> Row:
    fix = "set this machine's clock, best by NTP"
    if ahead_s is None:
        return Row("clock", "warn", "the server does not tell the time", "see that both clocks are set by NTP")
    text = f"{abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'} the server's"
    if ahead_s > _AHEAD_FAIL_S or -ahead_s > _BEHIND_FAIL_S:
        return Row("clock", "fail", f"{text}: it refuses requests signed at another time", fix)
    if ahead_s > _AHEAD_WARN_S or -ahead_s > _BEHIND_WARN_S:
        return Row("clock", "warn", text, fix)
    return Row("clock", "pass", text)


def _authenticated(answer: Answer, key: ec.EllipticCurvePrivateKey | None, site: SiteConfig) -> Row:
    if key is None:
        return Row("authenticated", "skip", "not looked at: needs the key")
    if answer.code == ApiErrorCode.FLEET_INVALID_HEARTBEAT_INTERVAL:
        return Row("authenticated", "pass", "the server knows this site's key")
    if answer.code == ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED:
        fix = (
            f"send {public_key_file(site.key)} to the coordinator, who authorises it with "
            f"`msfl-server add-site STUDY_DIR {site.name} --public-key FILE`"
        )
        return Row("authenticated", "fail", "the server does not know this site's key", fix)
    if answer.status == httpx.codes.UNAUTHORIZED:
        return Row("authenticated", "fail", "the server refuses this site's signature", "set this machine's clock")
    text = f"the server answers HTTP {answer.status} to a signed request"
    return Row("authenticated", "fail", text, "ask the coordinator to look at the server's log")


def _ask(address: str, authority: Path, key: ec.EllipticCurvePrivateKey | None) -> Answer:
    """Send the one request; without the site's key it is signed by a key that nobody knows.

    Raises:
        _NoAnswerError: the server could not be reached, or not be trusted.
    """
    key = key or generate_key_pairs()[0]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(authority)
    request = ActivateNodeRequest(public_key=public_key_to_bytes(key.public_key()), heartbeat_interval=_NO_INTERVAL_S)
    witness = _Witness()
    client = FleetHttpClient(
        f"https://{address}",
        interceptors=[NodeAuthHttpInterceptor(key, key.public_key()), witness],
        verify=context,
        timeout=_TIMEOUT_S,
    )
    with client:
        try:
            client.ActivateNode(request)
        except httpx.HTTPStatusError as error:
            assert witness.expires is not None, "an answer came, so TLS stood"
            return _read_answer(error.response, witness.expires)
        except httpx.HTTPError as error:
            raise _why_no_answer(error, address) from None
        except ValueError:  # an answer that is not Flower's
            pass
    raise _NoAnswerError(f"{address} answers, but not as a study's server", "ask the coordinator for the address")


def _read_answer(response: httpx.Response, certificate_expires: datetime) -> Answer:
    date = response.headers.get("date")
    ahead_s = None
    if date is not None:
        sent = datetime.now(UTC) - response.elapsed / 2
        ahead_s = (sent - parsedate_to_datetime(date)).total_seconds() - 0.5  # the date's fraction is cut off
    fault = FlowerError.from_json(response.text)
    return Answer(
        status=response.status_code,
        code=fault.code if fault else None,
        ahead_s=ahead_s,
        certificate_days=(certificate_expires - datetime.now(UTC)).days,
    )


def _why_no_answer(error: httpx.HTTPError, address: str) -> _NoAnswerError:
    """The row for a request that failed before an answer came."""
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _why_not_trusted(cause.verify_code, address)
        if isinstance(cause, ssl.SSLError):
            text = f"{address}: no TLS connection ({cause.reason or cause})"
            return _NoAnswerError(text, "ask the coordinator for the port; a proxy in between may answer instead")
        if isinstance(cause, socket.gaierror):
            return _NoAnswerError(f"{address}: no such host", "see that this machine's DNS knows the name")
        if isinstance(cause, ConnectionRefusedError):
            text = f"{address}: the machine is there, but nothing answers on this port"
            return _NoAnswerError(text, "ask the coordinator whether the server runs: `msfl-server status`")
    if isinstance(error, httpx.TimeoutException):
        fix = "allow outgoing connections to this address in the firewall; a proxy is named by HTTPS_PROXY"
        return _NoAnswerError(f"{address}: no answer within {_TIMEOUT_S:.0f} s", fix)
    text = f"{address}: no answer: {' '.join(str(causes[-1]).split()) or type(causes[-1]).__name__}"
    return _NoAnswerError(text, "see whether firewall and proxy (HTTPS_PROXY) let this machine reach the address")


def _why_not_trusted(verify_code: int, address: str) -> _NoAnswerError:
    if verify_code in _WRONG_HOST:
        host = address.rpartition(":")[0]
        fix = f"tell the coordinator to add {host} to `hosts:` of server.yaml, and `msfl-server renew-certificate`"
        return _NoAnswerError(f"{address}: the server's certificate is not good for this host", fix)
    if verify_code == _EXPIRED:
        fix = "tell the coordinator to run `msfl-server renew-certificate`; this site needs nothing new"
        return _NoAnswerError(f"{address}: the server's certificate has expired", fix)
    if verify_code == _NOT_YET_VALID:
        return _NoAnswerError(f"{address}: the server's certificate is not valid yet", "set this machine's clock")
    text = f"{address}: the server's certificate was not signed by the kit's authority"
    return _NoAnswerError(text, "do not go on: ask the coordinator whether a new kit was made, or who answers there")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what led to it, outermost first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _text_and_fix(error: InputError) -> tuple[str, str]:
    """An error's line, parted where its fix begins."""
    text, _, fix = " ".join(str(error).split()).rpartition("; ")
    return (text, fix) if text else (fix, "")


def _gb(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.0f}"
