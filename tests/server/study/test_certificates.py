"""The study's certificates, as Python's own TLS and OpenSSL's strict rules see them."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from msfl_server.study.certificates import (
    Pair,
    covers,
    expires_in_days,
    expiry_warning,
    issue_server_certificate,
    make_authority,
)

HOSTS = ["fl.example.org", "10.0.0.7", "2001:db8::1"]


def shake_hands(authority: Pair, server: Pair, host: str, folder: Path) -> None:
    """A TLS handshake in memory, with every check that Python has."""
    (folder / "server.pem").write_bytes(server.certificate_pem + server.key_pem)
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(folder / "server.pem")
    trusted = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusted.verify_flags |= ssl.VERIFY_X509_STRICT
    trusted.load_verify_locations(cadata=authority.certificate_pem.decode())
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusted.wrap_bio(to_client, to_server, server_hostname=host)
    end = served.wrap_bio(to_server, to_client, server_side=True)
    for side in (client, end, client, end):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    assert client.getpeercert()


@pytest.mark.parametrize("host", [*HOSTS, "localhost", "127.0.0.1"])
def test_a_strict_client_trusts_each_host(tmp_path: Path, host: str) -> None:
    authority = make_authority("pilot")
    server = issue_server_certificate(authority, HOSTS)
    shake_hands(authority, server, host, tmp_path)
    assert covers(server.certificate, host)


def test_another_host_and_another_authority_are_refused(tmp_path: Path) -> None:
    authority = make_authority("pilot")
    server = issue_server_certificate(authority, HOSTS)
    assert not covers(server.certificate, "fl.example.com")
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake_hands(authority, server, "fl.example.com", tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(make_authority("pilot"), server, "fl.example.org", tmp_path)


def test_a_certificate_for_the_same_key_is_trusted_as_before(tmp_path: Path) -> None:
    authority = make_authority("pilot")
    first = issue_server_certificate(authority, HOSTS)
    renewed = issue_server_certificate(authority, HOSTS, key=first.key)
    assert renewed.key_pem == first.key_pem
    assert renewed.certificate.serial_number != first.certificate.serial_number
    shake_hands(authority, renewed, "fl.example.org", tmp_path)


def test_validity() -> None:
    now = datetime(2030, 1, 1, tzinfo=UTC)
    authority = make_authority("pilot", now)
    server = issue_server_certificate(authority, ["x"], now=now)
    assert expires_in_days(authority.certificate, now) == 3652
    assert expires_in_days(server.certificate, now) == 730
    assert server.certificate.not_valid_before_utc == now - timedelta(days=1)
    late = issue_server_certificate(authority, ["x"], now=now + timedelta(days=3600))
    assert late.certificate.not_valid_after_utc == authority.certificate.not_valid_after_utc


@pytest.mark.parametrize(
    ("days", "sentence"),
    [
        (699, None),
        (700, None),
        (701, "the certificate expires in 29 days, on 2032-01-01; renew it"),
        (730, "the certificate expires in 0 days, on 2032-01-01; renew it"),
        (731, "the certificate expired on 2032-01-01; renew it"),
    ],
)
def test_the_warning_comes_thirty_days_ahead(days: int, sentence: str | None) -> None:
    made = datetime(2030, 1, 1, tzinfo=UTC)
    certificate = issue_server_certificate(make_authority("pilot", made), ["x"], now=made).certificate
    assert expiry_warning("the certificate", certificate, "renew it", made + timedelta(days=days)) == sentence


def test_a_long_study_name_fits() -> None:
    assert make_authority("s" * 64).certificate.subject.rfc4514_string().startswith("CN=MSFL sss")
