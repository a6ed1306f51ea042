"""The sites' public keys: how one is read, and which were taken away, so that no backup brings one back unnoticed.

`sites/removed/` holds a file for each, by the key's own digest: an older `sites/` laid over it takes none away.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from msfl_common.errors import InputError, unreadable
from msfl_common.system.files import write_bytes
from msfl_common.system.reading import MOST_KEY, read_bounded

_FOLDER = "removed"


def read_public_key(path: Path) -> str:
    """A site's public key in OpenSSH format, without its comment.

    Raises:
        InputError: the file is missing, or holds anything but an elliptic-curve P-384 public key.
    """
    try:
        content = read_bounded(path, MOST_KEY)
    except OSError as error:
        raise InputError(f"{path}: " + unreadable(error, "name the site's site.key.pub")) from None
    if b"PRIVATE KEY" in content:
        raise InputError(
            f"{path}: is a private key, which must never leave its site; "
            "delete this copy, have the site make a new key, and ask for its site.key.pub"
        )
    try:
        key = serialization.load_ssh_public_key(content.strip())
    except Exception:  # cryptography raises several kinds; none tells more than this
        raise InputError(f"{path}: no OpenSSH public key; name the site's site.key.pub") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        kind = content.split()[0].decode(errors="replace")
        raise InputError(f"{path}: expected an ecdsa-sha2-nistp384 key, found {kind}; `msfl-client init` makes one")
    return key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()


def remember_removed(public_key_file: Path) -> None:
    """The site of this file, one of `sites/`, is about to be removed."""
    content = public_key_file.read_bytes()
    write_bytes(_mark(public_key_file.parent, content), content)


def was_removed(public_key_file: Path) -> bool:
    """Whether the key in this file of `sites/` was taken away before, and is back without a person's word."""
    return _mark(public_key_file.parent, public_key_file.read_bytes()).exists()


def forget_removed(sites: Path, key: str) -> None:
    """A person authorises a site with this key again."""
    _mark(sites, key.encode()).unlink(missing_ok=True)


def _mark(sites: Path, line: bytes) -> Path:
    kind_and_key = b" ".join(line.split()[:2])
    return sites / _FOLDER / f"{hashlib.sha256(kind_and_key).hexdigest()}.pub"
