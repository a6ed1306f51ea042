"""Signatures of a site, of a study's server and of its authority under what the other side keeps as proof.

Each is an ECDSA signature (SHA-256) over a purpose and the content, so that what was signed as one kind of document can
never be shown as another. A server's signature comes with its certificate, which the study's authority has issued.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from msfl_common.errors import InputError

_MOST_CHARACTERS = 512


def sign(key: ec.EllipticCurvePrivateKey, purpose: str, content: bytes) -> str:
    """A signature in base64.

    Args:
        key: who signs.
        purpose: what kind of document this is, such as `msfl kit 1`; no NUL.
        content: the document.
    """
    return base64.b64encode(key.sign(_signed(purpose, content), ec.ECDSA(SHA256()))).decode()


def is_signed(key: ec.EllipticCurvePublicKey, purpose: str, content: bytes, signature: str) -> bool:
    """Whether the signature is by the owner of `key`, under this content and for this purpose."""
    if len(signature) > _MOST_CHARACTERS:
        return False
    try:
        key.verify(base64.b64decode(signature, validate=True), _signed(purpose, content), ec.ECDSA(SHA256()))
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


def key_issued_by(authority: x509.Certificate, certificate_pem: bytes) -> ec.EllipticCurvePublicKey:
    """The public key of a certificate that the authority has issued; its dates are not looked at.

    Raises:
        InputError: it is no certificate, another authority's, or has a key of another kind.
    """
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem)
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        raise InputError("the signer's certificate is not one that the study's authority has issued") from None
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise InputError("the signer's certificate has a key of another kind than the study's")
    return key


def canonical(body: Mapping[str, Any]) -> bytes:
    """The one way to write a JSON document that is signed or hashed."""
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()


def _signed(purpose: str, content: bytes) -> bytes:
    return purpose.encode() + b"\0" + content
