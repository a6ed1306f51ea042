"""Who vouches for a model folder: `signature.json`, a list of its files with their SHA-256, signed by the study.

The study's server signs with the key whose certificate its authority has issued, the one that the joining kit brings.
A model of a simulation has no authority behind it and is not signed: its list shows that nothing was altered by
accident, and nothing else.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import Field

from msfl_common.config.base import Frozen, Sha256
from msfl_common.errors import ConfigError, InputError, ModelFolderError
from msfl_common.system.files import write_text
from msfl_common.system.reading import read_record
from msfl_common.trust.kit import CA_FILE, fingerprint, read_certificate
from msfl_common.trust.signatures import canonical, is_signed, key_issued_by, sign

WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "model.json"
REFERENCE_FILE = "harmonization.json"
SIGNATURE_FILE = "signature.json"
SEGMENTATION_FOLDER = "segmentation"

PURPOSE = "msfl model 1"
_OWN_FILES = (CARD_FILE, WEIGHTS_FILE, REFERENCE_FILE)
FILES = (*_OWN_FILES, *(f"{SEGMENTATION_FOLDER}/{name}" for name in (*_OWN_FILES, SIGNATURE_FILE)))
_MOST_PEM = 8192


@dataclass(frozen=True)
class ModelSigner:
    """What a study's server signs its models with."""

    key: ec.EllipticCurvePrivateKey
    certificate: bytes
    authority: bytes


class Seal(Frozen):
    """Who signed, as PEM and base64."""

    certificate: str = Field(max_length=_MOST_PEM, description="of the server that signed")
    authority: str = Field(max_length=_MOST_PEM, description="certificate of the study's authority, which issued it")
    signature: str = Field(max_length=512, description="under the list of files")


class Signature(Frozen):
    """What `signature.json` says."""

    schema_version: Literal[1] = 1
    files: dict[str, Sha256] = Field(max_length=len(FILES), description="SHA-256 of each file of the folder")
    seal: Seal | None = Field(None, description="the study's; null where no authority stands behind the model")


@dataclass(frozen=True)
class Origin:
    """Who vouches for a folder.

    Attributes:
        authority: fingerprint of the authority whose server signed it; None where nobody did.
        is_known: the reader named that authority.
    """

    authority: str | None = None
    is_known: bool = False

    @property
    def sentence(self) -> str:
        """What people are told of it."""
        if self.authority is None:
            return "Model not signed: nothing shows who made it; a model of a simulation never is."
        if self.is_known:
            return f"Model signed by the study's server; the authority is the one you named, {self.authority}."
        return (
            f"Model signed, by a server of the authority {self.authority}; "
            "--authority compares that with the one you know."
        )


def write_signature(folder: Path, signer: ModelSigner | None) -> None:
    """List the files of a model folder that is otherwise complete, and sign the list where there is a signer."""
    files = {name: _sha256(folder / name) for name in FILES if (folder / name).is_file()}
    seal = None
    if signer is not None:
        signed = sign(signer.key, PURPOSE, canonical(files))
        seal = Seal(certificate=signer.certificate.decode(), authority=signer.authority.decode(), signature=signed)
    write_text(folder / SIGNATURE_FILE, Signature(files=files, seal=seal).model_dump_json(indent=2) + "\n")


def check_origin(folder: Path, authority: str | None = None) -> Origin:
    """Hold a folder's files against its list, and the list against its signature.

    Args:
        folder: a model folder; one without `signature.json` is not signed.
        authority: fingerprint of the one authority whose models are taken; None takes any, and unsigned ones.

    Raises:
        ModelFolderError: a file or the list was altered, or no server of that authority signed it.
    """
    path = folder / SIGNATURE_FILE
    if not path.exists():
        return _demanded(folder, Origin(), authority)
    try:
        found = read_record(Signature, path)
    except ConfigError as error:
        raise ModelFolderError(f"{error}; copy the folder again") from None
    there = {name for name in FILES if (folder / name).exists()}
    if differ := sorted(found.files.keys() ^ there):
        raise ModelFolderError(f"{path}: lists other files than the folder holds; they differ in {differ[0][:60]!r}")
    for name, digest in found.files.items():
        if _sha256(folder / name) != digest:
            raise ModelFolderError(
                f"{folder / name}: altered or damaged, its SHA-256 is not the one in {SIGNATURE_FILE}; "
                "copy the folder again"
            )
    return _demanded(folder, Origin() if found.seal is None else _of_seal(path, found.seal, found.files), authority)


def origin_of_file(path: Path) -> str:
    """What people are told of a reference, which may lie in its model folder or have been copied alone.

    Raises:
        ModelFolderError: the folder that it lies in was altered.
    """
    if path.name == REFERENCE_FILE and (path.parent / SIGNATURE_FILE).exists():
        return check_origin(path.parent).sentence
    return "Reference not signed: nothing shows who made it; in its model folder it is signed with the model."


def fingerprint_of(authority: str) -> str:
    """The fingerprint that `--authority` stands for: itself, or of a certificate in a file or a joining kit's folder.

    Raises:
        InputError: it is neither.
    """
    plain = authority.replace(":", "").lower()
    if len(plain) == 64 and set(plain) <= set("0123456789abcdef"):
        return plain
    path = Path(authority)
    try:
        return fingerprint(read_certificate(path / CA_FILE if path.is_dir() else path))
    except InputError:
        raise InputError(
            f"--authority {authority}: expected a certificate such as kit/ca.crt, or its SHA-256 fingerprint"
        ) from None


def _of_seal(path: Path, seal: Seal, files: dict[str, str]) -> Origin:
    try:
        authority = x509.load_pem_x509_certificate(seal.authority.encode())
        key = key_issued_by(authority, seal.certificate.encode())
    except (ValueError, InputError):
        raise ModelFolderError(f"{path}: the signer's certificates are damaged; copy the folder again") from None
    if not is_signed(key, PURPOSE, canonical(files), seal.signature):
        raise ModelFolderError(f"{path}: altered, the signature is not under these files; copy the folder again")
    return Origin(fingerprint(authority))


def _demanded(folder: Path, origin: Origin, authority: str | None) -> Origin:
    if authority is None:
        return origin
    if origin.authority != authority:
        found = "is not signed" if origin.authority is None else f"was signed for the authority {origin.authority}"
        raise ModelFolderError(f"{folder}: {found}; expected {authority}; ask who gave it to you for the study's own")
    return Origin(authority, is_known=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
