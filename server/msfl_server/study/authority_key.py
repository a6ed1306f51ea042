"""The key of a study's authority: where it lies, and the passphrase that may protect it.

Signing needs it: joining kits and the server's certificate. Running a study does not, so it can lie on another machine.
"""

from __future__ import annotations

import getpass
import sys
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from msfl_common.errors import InputError, unreadable
from msfl_common.system.files import is_open_to_others, quoted, read_secret, write_bytes
from msfl_common.system.reading import MOST_KEY, read_bounded

_FIX = "name the file with --ca-key, or restore it from a backup"
_SHORTEST = 8


def write_authority_key(path: Path, key: ec.EllipticCurvePrivateKey, passphrase: bytes | None) -> None:
    """Write the key, mode 0600, as PKCS8, encrypted where there is a passphrase."""
    protection = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)
    write_bytes(path, pem, secret=True)


def load_authority_key(
    path: Path, authority: x509.Certificate, passphrase_file: Path | None = None
) -> ec.EllipticCurvePrivateKey:
    """Read the authority's key; a passphrase that it needs comes from a file, or is asked for on the terminal.

    Raises:
        InputError: the file is missing, open to others, damaged or another authority's, or the passphrase is wrong.
    """
    try:
        content, mode = read_bounded(path, MOST_KEY), path.stat().st_mode
    except OSError as error:
        raise InputError(f"{path}: the authority's key cannot be read: {error.strerror}; {_FIX}") from None
    protected = b"ENCRYPTED" in content
    if not protected and is_open_to_others(mode):
        raise InputError(f"{path}: other accounts may use it (mode {mode & 0o777:04o}); run `chmod 600 {quoted(path)}`")
    passphrase = (read_passphrase(passphrase_file) if passphrase_file else _ask(path)) if protected else None
    try:
        key = serialization.load_pem_private_key(content, passphrase)
    except (ValueError, TypeError):
        fault = "the passphrase is wrong, or the file damaged; try again" if protected else f"no private key; {_FIX}"
        raise InputError(f"{path}: {fault}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != authority.public_key():
        raise InputError(f"{path}: is not the key of the study's authority; {_FIX}")
    return key


def read_passphrase(path: Path) -> bytes:
    """The passphrase in a file that its account alone may read: the first line.

    Raises:
        InputError: the file is missing or open to others, or the passphrase is short.
    """
    try:
        line = read_secret(path).split(b"\n", 1)[0].rstrip(b"\r")
    except OSError as error:
        raise InputError(f"{path}: {unreadable(error, 'name the file with the passphrase')}") from None
    return _long_enough(line)


def new_passphrase() -> bytes:
    """A passphrase that a person types twice.

    Raises:
        InputError: there is no terminal, the two differ, or it is short.
    """
    _needs_terminal("a new passphrase")
    first = getpass.getpass("New passphrase of the authority's key: ")
    if getpass.getpass("The same again: ") != first:
        raise InputError("the two passphrases differ; try again")
    return _long_enough(first.encode())


def _ask(path: Path) -> bytes:
    _needs_terminal(str(path))
    return getpass.getpass(f"Passphrase of {path}: ").encode()


def _needs_terminal(what: str) -> None:
    if not sys.stdin.isatty():
        raise InputError(f"{what}: needs a passphrase, and there is no terminal; use --passphrase-file FILE")


def _long_enough(passphrase: bytes) -> bytes:
    if len(passphrase) < _SHORTEST:
        raise InputError(f"the passphrase has {len(passphrase)} characters; choose one of at least {_SHORTEST}")
    return passphrase
