"""The site's key, with which it signs every request to the server: elliptic curve P-384, OpenSSH format."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from msfl_common.errors import InputError
from msfl_common.files import write_bytes, write_text

_REMAKE = "make one with `msfl-client init`, and send its public key to the coordinator"


def public_key_file(key: Path) -> Path:
    """The public key that lies beside a private one."""
    return key.with_name(f"{key.name}.pub")


def make_key(path: Path, comment: str) -> str:
    """Make a private key, mode 0600, and its public key beside it; the public key as one line.

    Args:
        path: the private key's file, which must not be there yet.
        comment: whose key it is; ends the public key's line.

    Raises:
        InputError: a key is there already; it is left as it is.
    """
    for file in (path, public_key_file(path)):
        if file.exists():
            raise InputError(f"{file}: is there already; keep it, or move it away to make a new key")
    key = ec.generate_private_key(ec.SECP384R1())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    line = f"{public_line(key)} {comment}"
    write_bytes(path, private, secret=True)
    write_text(public_key_file(path), line + "\n")
    return line


def load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Read the site's private key.

    Raises:
        InputError: it is missing, readable by other accounts, protected by a passphrase, or of another kind.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise InputError(f"{path}: other accounts may use it (mode {mode:04o}); run `chmod 600 {path}`")
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; make one with `msfl-client init`, or correct `key:`") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; run as the account that made it") from None
    try:
        key = serialization.load_ssh_private_key(content, password=None)
    except TypeError:
        raise InputError(f"{path}: has a passphrase, but a site starts unattended; {_REMAKE}") from None
    except Exception:  # cryptography raises several kinds; none tells more than this
        raise InputError(f"{path}: no OpenSSH private key, or damaged; {_REMAKE}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP384R1):
        raise InputError(f"{path}: expected an ecdsa-sha2-nistp384 key, found another kind; {_REMAKE}")
    return key


def public_line(key: ec.EllipticCurvePrivateKey) -> str:
    """The public key in OpenSSH format, without a comment."""
    return key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
