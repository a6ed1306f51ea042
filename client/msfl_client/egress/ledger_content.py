"""What left, kept: each message in `sent/NUMBER.age`, encrypted to the data protection officer's key (age, X25519).

NUMBER is the message's line in the ledger. This account can write and delete these files, but not open them: the
officer's private key lies elsewhere. An opened message is held against the SHA-256 in its line.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyrage

from msfl_client.egress.ledger_line import Line
from msfl_client.site.passphrase import check_length
from msfl_common.config.ledger import KeepContent
from msfl_common.errors import Code, InputError, RefusedError, unreadable
from msfl_common.messages.file import Opened, Shapes, from_bytes, to_bytes
from msfl_common.messages.records import Content
from msfl_common.system.files import private_folder, write_bytes, write_text
from msfl_common.system.reading import MOST_KEY, read_bounded

SENT_FOLDER = "sent"
_DAY_S, _GB = 86_400, 1e9


@dataclass(frozen=True)
class OfficerKey:
    """What `make_officer_key` made."""

    key: Path
    public_key_file: Path
    public_key: str


def make_officer_key(path: Path, passphrase: str) -> OfficerKey:
    """Make a data protection officer's key pair: the private one behind a passphrase, the public one beside it.

    Raises:
        InputError: the passphrase is short, or a key is there already.
    """
    public_file = path.with_name(f"{path.name}.pub")
    check_length(passphrase)
    for file in (path, public_file):
        if file.exists():
            raise InputError(f"{file}: is there already; name another file")
    identity = pyrage.x25519.Identity.generate()
    public = str(identity.to_public())
    try:
        write_bytes(path, pyrage.passphrase.encrypt(str(identity).encode(), passphrase), secret=True)
        write_text(public_file, public + "\n")
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}; name another folder") from None
    return OfficerKey(path, public_file, public)


def read_recipient(path: Path) -> pyrage.x25519.Recipient:
    """The officer's public key.

    Raises:
        InputError: it is missing, or none.
    """
    try:
        return pyrage.x25519.Recipient.from_str(read_bounded(path, MOST_KEY).decode("ascii").strip())
    except (OSError, ValueError, InputError, pyrage.RecipientError):
        raise InputError(
            f"{path}: no public key of a data protection officer (age1...); `msfl-client make-officer-key` makes one, "
            "or correct `policy.keep_content.public_key`"
        ) from None


def keeper(settings: KeepContent, folder: Path, content: Content, arrays: Shapes) -> Callable[[int], None]:
    """Encrypt a message; what is returned writes it down under its line's number.

    Raises:
        RefusedError: by the returned function: there is no room, so the message must not leave; with the code
            DISK_FULL. By this one: the key cannot be used.
    """
    try:
        sealed = pyrage.encrypt(to_bytes(content, arrays), [read_recipient(settings.public_key)])
    except InputError as error:
        raise RefusedError(Code.POLICY, str(error)) from None

    def keep(number: int) -> None:
        try:
            private_folder(folder)
            held = _prune(folder, time.time() - settings.days * _DAY_S)
            if held + len(sealed) > settings.max_gb * _GB:
                raise RefusedError(
                    Code.DISK_FULL,
                    f"{folder} holds {held / _GB:.2f} GB of {settings.days} days, at most {settings.max_gb:g}: the "
                    "message did not leave; raise policy.keep_content.max_gb, or lower its days",
                )
            write_bytes(_file(folder, number), sealed, secret=True)
        except OSError as error:
            why = f"{folder}: the message could not be kept, so it did not leave: {error.strerror}"
            raise RefusedError(Code.DISK_FULL, why) from error

    return keep


def read_officer_key(path: Path, passphrase: str) -> pyrage.x25519.Identity:
    """The officer's private key.

    Raises:
        InputError: it cannot be read, or the passphrase is another.
    """
    try:
        sealed = read_bounded(path, MOST_KEY)
        return pyrage.x25519.Identity.from_str(pyrage.passphrase.decrypt(sealed, passphrase).decode())
    except OSError as error:
        raise InputError(f"{path}: " + unreadable(error, "name the officer's key")) from None
    except (pyrage.DecryptError, pyrage.IdentityError, ValueError):
        raise InputError(
            f"{path}: another passphrase, or no key of `msfl-client make-officer-key`; try again"
        ) from None


def open_content(folder: Path, line: Line, key: pyrage.x25519.Identity) -> Opened:
    """Decrypt what was kept of a line.

    Raises:
        InputError: it was not kept, was exchanged, or is for another key.
    """
    file = _file(folder, line.number)
    try:
        opened = from_bytes(pyrage.decrypt(file.read_bytes(), [key]))
    except OSError:
        raise InputError(
            f"{file}: not there: the message was a refusal, left before `policy.keep_content` was set, or is too old"
        ) from None
    except pyrage.DecryptError:
        raise InputError(f"{file}: cannot be opened: it was changed, or is for another key") from None
    except InputError as error:
        raise InputError(f"{file}: was exchanged: it {error}") from None
    shapes = {name: list(array.shape) for name, array in opened.arrays.items()}
    if opened.sha256 != line.sha256 or shapes != line.arrays:
        raise InputError(f"{file}: was exchanged: it is not the message of line {line.number}")
    return opened


def kept_numbers(folder: Path) -> set[int]:
    """Numbers of the lines whose messages are kept."""
    return {int(file.stem) for file in folder.glob("*.age") if file.stem.isdigit()}


def _prune(folder: Path, before: float) -> int:
    """Delete what is older than `before`, seconds since 1970; the bytes of what stays."""
    held = 0
    for file in folder.glob("*.age"):
        found = file.stat()
        if found.st_mtime < before:
            file.unlink()
        else:
            held += found.st_size
    return held


def _file(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.age"
