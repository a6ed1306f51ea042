"""The joining kit: what a coordinator hands to a site so that it finds, and trusts, the right server.

Four files, none of them secret: `kit.json`, the certificate of the study's authority `ca.crt`, `study.yaml`, and
`kit.sig`, the authority's signature under the three and the site's name. A site uses a kit that a person there has
approved, and checks the server's certificate against this one authority and no other.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import AwareDatetime, Field

from msfl_common import __version__
from msfl_common.config.base import Frozen, Name, Sha256, validate
from msfl_common.config.study import StudyConfig
from msfl_common.errors import ConfigError, InputError, unreadable
from msfl_common.system.reading import MOST_KEY, mapping_of, parse_record, read_bounded
from msfl_common.trust.signatures import canonical, is_signed, sign

KIT_FILE = "kit.json"
CA_FILE = "ca.crt"
STUDY_FILE = "study.yaml"
SIGNATURE_FILE = "kit.sig"
KIT_FILES = (KIT_FILE, CA_FILE, STUDY_FILE, SIGNATURE_FILE)
MOST_BYTES = 128 * 1024  # of one file; a study with every setting and its comments takes a tenth
_PURPOSE = "msfl kit 1"

_ASK_AGAIN = "ask the coordinator for it again"


class Kit(Frozen):
    """What `kit.json` says."""

    schema_version: Literal[1] = Field(1, description="version of this file's format")
    study: Name = Field(description="name of the study")
    site: Name = Field(description="name of the site that the kit is for")
    address: str = Field(
        pattern=r"^[A-Za-z0-9.:\[\]_-]{1,260}:\d{1,5}$", description="host:port of the server, as the site reaches it"
    )
    msfl_version: str = Field(pattern=r"^[0-9A-Za-z.+-]{1,40}$", description="version of MSFL at the coordinator")
    ca_sha256: Sha256 = Field(description="SHA-256 fingerprint of the certificate in ca.crt")
    server_since: AwareDatetime = Field(
        description="certificates of the server that are valid from an earlier time are void: their key was given up"
    )


@dataclass(frozen=True)
class SignedKit:
    """A whole kit whose signature is its own authority's.

    Attributes:
        kit: what `kit.json` says.
        study: the study.
        authority: the one certificate that the server's is checked against.
        files: the content of each file, by name.
    """

    kit: Kit
    study: StudyConfig
    authority: x509.Certificate
    files: Mapping[str, bytes]

    @property
    def digest(self) -> str:
        """SHA-256 of all that the kit says: equal for a kit that was only signed anew."""
        return hashlib.sha256(_signed_content(self.kit.site, self.files)).hexdigest()


def load_kit(folder: Path) -> Kit:
    """What the kit in a folder says; see `read_kit`."""
    return read_kit(folder).kit


def read_kit(folder: Path) -> SignedKit:
    """Read an unpacked joining kit and check that it is whole, signed, and its authority in force.

    Raises:
        InputError: a file is missing, strange, damaged or exchanged, or the authority has expired.
    """
    return parse_kit(_read_files(folder), str(folder))


def parse_kit(files: Mapping[str, bytes], source: str) -> SignedKit:
    """A kit of its files' contents.

    Args:
        files: content of each file, by its name.
        source: where they are from, for errors.

    Raises:
        InputError: as `read_kit`.
    """
    if missing := [name for name in KIT_FILES if name not in files]:
        raise InputError(f"{source}: {lacks(missing)}")
    try:
        kit = parse_record(Kit, files[KIT_FILE], f"{source}/{KIT_FILE}")
    except ConfigError as error:
        raise ConfigError(error.source, [f"{error.faults[0]}; {_ASK_AGAIN}"]) from None
    authority = _parse_authority(files[CA_FILE], f"{source}/{CA_FILE}")
    if fingerprint(authority) != kit.ca_sha256:
        raise InputError(
            f"{source}/{CA_FILE}: not the certificate that kit.json names, so the server cannot be trusted; "
            "ask the coordinator for the kit again, and compare its fingerprint over the telephone"
        )
    key, signature = authority.public_key(), files[SIGNATURE_FILE].decode("ascii", errors="replace").strip()
    content = _signed_content(kit.site, files)
    if not isinstance(key, ec.EllipticCurvePublicKey) or not is_signed(key, _PURPOSE, content, signature):
        raise InputError(
            f"{source}: not signed by the study's authority, so somebody else made or changed it; {_ASK_AGAIN}"
        )
    study = _parse_study(files[STUDY_FILE], f"{source}/{STUDY_FILE}", kit.msfl_version)
    if study.name != kit.study:
        raise InputError(f"{source}: kit.json names the study {kit.study}, study.yaml {study.name}; {_ASK_AGAIN}")
    return SignedKit(kit, study, authority, dict(files))


def lacks(missing: Sequence[str]) -> str:
    """What is said of a kit without some of its files; the signature is the one that earlier versions did not make."""
    if list(missing) == [SIGNATURE_FILE]:
        return (
            "the kit is not signed, as those of earlier versions were not; have the coordinator install "
            f"MSFL {__version__}, run `msfl-server renew-kits`, and send the new kit"
        )
    return f"the kit has no {missing[0]}; {_ASK_AGAIN}"


def sign_kit(key: ec.EllipticCurvePrivateKey, site: str, files: Mapping[str, bytes]) -> bytes:
    """The content of `kit.sig` for the other three files of a site's kit."""
    return (sign(key, _PURPOSE, _signed_content(site, files)) + "\n").encode()


def read_certificate(path: Path, fix: str = _ASK_AGAIN) -> x509.Certificate:
    """The one certificate of a PEM file.

    Args:
        path: the file.
        fix: what the reader of an error is to do.

    Raises:
        InputError: the file is missing, or holds no certificate or several.
    """
    try:
        content = read_bounded(path, MOST_KEY)
    except OSError as error:
        raise InputError(f"{path}: {unreadable(error, fix)}") from None
    return _parse_certificate(content, str(path), fix)


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of a certificate, 64 lower-case hexadecimal digits."""
    return certificate.fingerprint(SHA256()).hex()


def spoken(fingerprint: str) -> str:
    """A fingerprint for reading aloud: sixteen groups of four, in four lines.

    >>> spoken("0123456789abcdef" * 4).splitlines()[0]
    '0123 4567 89AB CDEF'
    """
    groups = [fingerprint[start : start + 4].upper() for start in range(0, len(fingerprint), 4)]
    return "\n".join(" ".join(groups[start : start + 4]) for start in range(0, len(groups), 4))


def _signed_content(site: str, files: Mapping[str, bytes]) -> bytes:
    digests = {name: hashlib.sha256(files[name]).hexdigest() for name in KIT_FILES if name != SIGNATURE_FILE}
    return canonical({"site": site, "files": digests})


def _read_files(folder: Path) -> dict[str, bytes]:
    """The files of a folder that holds a kit and nothing else; no link is followed, no large file read."""
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no joining kit; take over the coordinator's with `msfl-client join KIT.zip SITE.yaml`, "
            "or correct `kit:`"
        )
    files = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name not in KIT_FILES:
                raise InputError(
                    f"{folder}: {entry.name!a} is no file of a kit; move it away, or take the kit over again with "
                    "`msfl-client join KIT.zip SITE.yaml`"
                )
            files[entry.name] = _read_file(folder / entry.name)
    return files


def _read_file(path: Path) -> bytes:
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        with os.fdopen(os.open(path, flags), "rb") as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise InputError(f"{path}: no ordinary file; {_ASK_AGAIN}")
            content = stream.read(MOST_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: a link, or cannot be read: {error.strerror}; {_ASK_AGAIN}") from None
    if len(content) > MOST_BYTES:
        raise InputError(f"{path}: larger than any file of a kit, {MOST_BYTES} bytes; {_ASK_AGAIN}")
    return content


def _parse_study(content: bytes, source: str, version: str) -> StudyConfig:
    found = mapping_of(content, source)
    try:
        return validate(StudyConfig, found, source)
    except ConfigError as error:
        fix = f"install MSFL {version}, as the coordinator has (here is {__version__})"
        raise ConfigError(source, [f"{error.faults[0]}; {fix}"]) from None


def _parse_certificate(content: bytes, source: str, fix: str) -> x509.Certificate:
    try:
        found = x509.load_pem_x509_certificates(content)
    except Exception:  # cryptography raises several kinds; none tells more than this
        raise InputError(f"{source}: holds no certificate; {fix}") from None
    if len(found) != 1:
        raise InputError(f"{source}: expected one certificate, found {len(found)}; {fix}")
    return found[0]


def _parse_authority(content: bytes, source: str) -> x509.Certificate:
    """The certificate of an authority that is in force; the file holds it, and not one byte besides."""
    authority = _parse_certificate(content, source, _ASK_AGAIN)
    try:
        alone = content.strip().replace(b"\r\n", b"\n") == authority.public_bytes(Encoding.PEM).strip()
        is_authority = authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        authority.verify_directly_issued_by(authority)
    except Exception:  # no such extension, a damaged one, another's signature
        alone = is_authority = False
    if not is_authority:
        raise InputError(f"{source}: expected a certificate authority, found another certificate; {_ASK_AGAIN}")
    if not alone:
        raise InputError(f"{source}: holds more than the authority's certificate; {_ASK_AGAIN}")
    now = datetime.now(UTC)
    if now > authority.not_valid_after_utc:
        ended = f"{authority.not_valid_after_utc:%Y-%m-%d}"
        raise InputError(f"{source}: the authority expired on {ended}; ask the coordinator for a new kit")
    if now < authority.not_valid_before_utc:
        begins = f"{authority.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
        raise InputError(f"{source}: the authority is valid from {begins}; set this machine's clock")
    return authority
