"""Signatures count for one signer, one content and one purpose."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from msfl_common.errors import InputError
from msfl_common.trust.signatures import is_signed, key_issued_by, sign
from msfl_server.study.certificates import issue_server_certificate, make_authority


def test_a_signature_is_of_its_signer_content_and_purpose() -> None:
    key, other = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP384R1())
    signature = sign(key, "kit", b"content")
    assert is_signed(key.public_key(), "kit", b"content", signature)
    assert not is_signed(other.public_key(), "kit", b"content", signature)
    assert not is_signed(key.public_key(), "kit", b"other content", signature)
    assert not is_signed(key.public_key(), "model", b"content", signature)
    assert not is_signed(key.public_key(), "", b"kit\0content", signature)
    assert not is_signed(key.public_key(), "kit", b"content", f"{signature}!")


@pytest.mark.parametrize("signature", ["", "no base64", "AAAA", "é", "A" * 100_000])
def test_what_is_no_signature_is_none(signature: str) -> None:
    key = ec.generate_private_key(ec.SECP384R1()).public_key()
    assert not is_signed(key, "kit", b"content", signature)


def test_a_certificate_counts_where_its_authority_issued_it() -> None:
    ours, others = make_authority("ours"), make_authority("ours")
    server = issue_server_certificate(ours, ["localhost"])
    signature = sign(server.key, "model", b"content")
    assert is_signed(key_issued_by(ours.certificate, server.certificate_pem), "model", b"content", signature)
    with pytest.raises(InputError, match="authority"):
        key_issued_by(others.certificate, server.certificate_pem)
    with pytest.raises(InputError, match="authority"):
        key_issued_by(ours.certificate, b"no certificate")
    made = (
        x509.CertificateBuilder(ours.certificate.subject, ours.certificate.subject)
        .public_key(ed25519.Ed25519PrivateKey.generate().public_key())
        .serial_number(1)
        .not_valid_before(ours.certificate.not_valid_before_utc)
        .not_valid_after(ours.certificate.not_valid_after_utc)
        .sign(ours.key, SHA256())
    )
    with pytest.raises(InputError, match="another kind"):
        key_issued_by(ours.certificate, made.public_bytes(Encoding.PEM))
