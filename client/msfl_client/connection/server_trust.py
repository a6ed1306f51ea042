"""Which server a site speaks to: one whose certificate the approved kit's authority has issued, and not given up."""

from __future__ import annotations

import ssl
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from msfl_common.trust.kit import SignedKit

GIVEN_UP = 23  # OpenSSL's number of a certificate that was revoked


def trust_of(kit: SignedKit) -> ssl.SSLContext:
    """TLS that trusts the kit's one authority, and its certificates from the time that the kit says."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata=kit.authority.public_bytes(Encoding.PEM).decode())
    since = kit.kit.server_since

    class Socket(ssl.SSLSocket):
        """A connection to the server, or through a proxy's tunnel."""

        def do_handshake(self, block: bool = False) -> None:
            """Shake hands, and look at the certificate's age."""
            super().do_handshake(block)
            _check(self.getpeercert(True), since)

    class Tunnelled(ssl.SSLObject):
        """A connection to the server inside one to a proxy that speaks TLS itself."""

        def do_handshake(self) -> None:
            """Shake hands, and look at the certificate's age."""
            super().do_handshake()
            _check(self.getpeercert(True), since)

    context.sslsocket_class, context.sslobject_class = Socket, Tunnelled
    return context


def _check(certificate: bytes | None, since: datetime) -> None:
    """Refuse a certificate that was given up, before anything of ours is sent.

    Raises:
        SSLCertVerificationError: it is one of those.
    """
    assert certificate is not None, "a client's handshake ends with the server's certificate"
    if x509.load_der_x509_certificate(certificate).not_valid_before_utc < since:
        error = ssl.SSLCertVerificationError(1, "the coordinator has given this certificate up")
        error.verify_code = GIVEN_UP
        raise error
