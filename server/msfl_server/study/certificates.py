"""The study's own certificate authority and the server certificate that it signs.

Sites trust this authority alone, so no public one can vouch for an impostor, and a renewed server certificate
is trusted at once. Both are elliptic-curve certificates (P-256) with the extensions that strict TLS clients ask for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_LIFE = timedelta(days=3652)
SERVER_LIFE = timedelta(days=730)
WARN_DAYS = 30
# Valid from a day before, for sites whose clock is behind.
BACKDATED = timedelta(days=1)
_LOOPBACK = ("localhost", "127.0.0.1")
_NAME_LIMIT = 64  # X.509's upper bound of a common name


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def certificate_pem(self) -> bytes:
        """The certificate as it stands in a .crt file."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The private key as it stands in a .key file: a secret."""
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


def make_authority(study: str, now: datetime | None = None) -> Pair:
    """A new certificate authority for a study, valid for ten years."""
    start = now or datetime.now(UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(f"MSFL {study}")
    certificate = (
        _builder(name, name, key.public_key(), start, start + AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Pair(certificate, key)


def issue_server_certificate(
    authority: Pair,
    hosts: Sequence[str],
    key: ec.EllipticCurvePrivateKey | None = None,
    now: datetime | None = None,
) -> Pair:
    """A server certificate for `hosts` and this machine itself, valid for two years or as long as the authority.

    Args:
        authority: who signs.
        hosts: host names and IP addresses that the certificate is good for.
        key: the server's key; without one, a new one is made.
        now: start of its validity.
    """
    start = now or datetime.now(UTC)
    key = key or ec.generate_private_key(ec.SECP256R1())
    end = min(start + SERVER_LIFE, authority.certificate.not_valid_after_utc)
    alternatives = [_alternative(host) for host in dict.fromkeys([*hosts, *_LOOPBACK])]
    signer = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    certificate = (
        _builder(_name(hosts[0]), authority.certificate.subject, key.public_key(), start, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(signer), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    return Pair(certificate, key)


def covers(certificate: x509.Certificate, host: str) -> bool:
    """Whether a server certificate is good for a host name or IP address."""
    return _alternative(host) in certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value


def expires_in_days(certificate: x509.Certificate, now: datetime | None = None) -> int:
    """Whole days until a certificate expires; negative when it has."""
    return (certificate.not_valid_after_utc - (now or datetime.now(UTC))).days


def expiry_warning(what: str, certificate: x509.Certificate, fix: str, now: datetime | None = None) -> str | None:
    """One sentence from 30 days before a certificate expires on, else None."""
    days = expires_in_days(certificate, now)
    if days >= WARN_DAYS:
        return None
    when = f"expires in {days} days, on" if days >= 0 else "expired on"
    return f"{what} {when} {certificate.not_valid_after_utc:%Y-%m-%d}; {fix}"


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, start: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - BACKDATED)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:_NAME_LIMIT])])


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)
