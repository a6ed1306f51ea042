"""The site's key, with which it signs every request to the server: elliptic curve P-384, OpenSSH format."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from msfl_common.errors import InputError
from msfl_common.system.files import read_secret, write_bytes, write_text

_KDF_ROUNDS = 64  # of bcrypt
_REMAKE = "make one with `msfl-client init`, and send its public key to the coordinator"


def public_key_file(key: Path) -> Path:
    """The public key that lies beside a private one."""
    return key.with_name(f"{key.name}.pub")


def make_key(path: Path, comment: str, passphrase: bytes | None = None) -> str:
    """Make a private key, mode 0600, and its public key beside it; the public key as one line.

    Args:
        path: the private key's file, which must not be there yet.
        comment: whose key it is; ends the public key's line.
        passphrase: what the private key is encrypted with, if anything; about half a second a guess.

    Raises:
        InputError: a key is there already; it is left as it is.
    """
    for file in (path, public_key_file(path)):
        if file.exists():
            raise InputError(f"{file}: is there already; keep it, or move it away to make a new key")
    key = ec.generate_private_key(ec.SECP384R1())
    encryption = (
        serialization.PrivateFormat.OpenSSH.encryption_builder().kdf_rounds(_KDF_ROUNDS).build(passphrase)
        if passphrase
        else serialization.NoEncryption()
    )
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, encryption)
    line = f"{public_line(key)} {comment}"
    write_bytes(path, private, secret=True)
    write_text(public_key_file(path), line + "\n")
    return line


def has_passphrase(path: Path) -> bool:
    """Whether a passphrase protects the key.

    Raises:
        InputError: it is missing, readable by other accounts, or cannot be read.
    """
    try:
        serialization.load_ssh_private_key(_read(path), password=None)
    except TypeError:
        return True
    except Exception:  # `load_key` says what is wrong with it
        return False
    return False


def load_key(path: Path, passphrase: bytes | None = None) -> ec.EllipticCurvePrivateKey:
    """Read the site's private key.

    Raises:
        InputError: it is missing, readable by other accounts, protected by another passphrase, or of another kind.
    """
    content = _read(path)
    try:
        key = serialization.load_ssh_private_key(content, password=passphrase)
    except TypeError:
        raise InputError(f"{path}: has a passphrase; see `key_passphrase:` in site.yaml") from None
    except Exception:  # cryptography raises several kinds; none tells more than this
        if passphrase is not None and has_passphrase(path):
            raise InputError(f"{path}: the passphrase is wrong, or the file is damaged") from None
        raise InputError(f"{path}: no OpenSSH private key, or damaged; {_REMAKE}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP384R1):
        raise InputError(f"{path}: expected an ecdsa-sha2-nistp384 key, found another kind; {_REMAKE}")
    return key


def _read(path: Path) -> bytes:
    try:
        return read_secret(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; make one with `msfl-client init`, or correct `key:`") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; run as the account that made it") from None


def public_line(key: ec.EllipticCurvePrivateKey) -> str:
    """The public key in OpenSSH format, without a comment."""
    return key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
