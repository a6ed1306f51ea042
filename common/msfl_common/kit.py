"""The joining kit: what a coordinator hands to a site so that it finds, and trusts, the right server.

A folder of three files, none of them secret: `kit.json`, the study's certificate authority `ca.crt`, and
`study.yaml`. The site checks the server's certificate against this authority and no other.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from pydantic import Field, ValidationError

from msfl_common.config import Frozen, Name, describe_faults
from msfl_common.errors import ConfigError, InputError

KIT_FILE = "kit.json"
CA_FILE = "ca.crt"
STUDY_FILE = "study.yaml"

_ASK_AGAIN = "ask the coordinator for it again"


class Kit(Frozen):
    """What `kit.json` says."""

    schema_version: Literal[1] = Field(1, description="version of this file's format")
    study: Name = Field(description="name of the study")
    site: Name = Field(description="name of the site that the kit is for")
    address: str = Field(pattern=r"^\S+:\d{1,5}$", description="host:port of the server, as the site reaches it")
    msfl_version: str = Field(description="version of MSFL at the coordinator")
    ca_sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 fingerprint of the certificate in ca.crt")


def load_kit(folder: Path) -> Kit:
    """Read a site's joining kit and check that its authority is whole, the right one, and in force.

    Raises:
        InputError: a file is missing, damaged or exchanged, or the authority has expired.
    """
    path = folder / KIT_FILE
    if not path.is_file():
        raise InputError(
            f"{folder}: no joining kit; unpack the coordinator's kit so that {path} is there, or correct `kit:`"
        )
    try:
        kit = Kit.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ConfigError(str(path), [f"{fault}; {_ASK_AGAIN}" for fault in describe_faults(error)]) from None
    authority = read_certificate(folder / CA_FILE)
    if fingerprint(authority) != kit.ca_sha256:
        raise InputError(
            f"{folder / CA_FILE}: not the certificate that kit.json names, so the server cannot be trusted; "
            "ask the coordinator for the kit again, and compare its fingerprint over the telephone"
        )
    _check_authority(authority, folder / CA_FILE)
    return kit


def read_certificate(path: Path, fix: str = _ASK_AGAIN) -> x509.Certificate:
    """The first certificate of a PEM file.

    Args:
        path: the file.
        fix: what the reader of an error is to do.

    Raises:
        InputError: the file is missing or holds no certificate.
    """
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; {fix}") from None
    except ValueError:
        raise InputError(f"{path}: holds no certificate; {fix}") from None


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of a certificate, 64 lower-case hexadecimal digits."""
    return certificate.fingerprint(SHA256()).hex()


def _check_authority(authority: x509.Certificate, path: Path) -> None:
    try:
        is_authority = authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        is_authority = False
    if not is_authority:
        raise InputError(f"{path}: expected a certificate authority, found another certificate; {_ASK_AGAIN}")
    now = datetime.now(UTC)
    if now > authority.not_valid_after_utc:
        ended = f"{authority.not_valid_after_utc:%Y-%m-%d}"
        raise InputError(f"{path}: the authority expired on {ended}; ask the coordinator for a new kit")
    if now < authority.not_valid_before_utc:
        begins = f"{authority.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
        raise InputError(f"{path}: the authority is valid from {begins}; set this machine's clock")
