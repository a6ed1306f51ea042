"""Files of what was given out about a site's patients, encrypted with a key of the site's own.

They name patients and hold digests of their values. Of values as few as those of the EDSS, whoever has a digest finds
the value by trying all; with keyed digests, by how often each occurs. So the files are encrypted whole (Fernet: AES-128
in CBC mode, and HMAC-SHA256, which tells another key from the right one).

The key, `account.key` in the state folder, mode 0600, is made with the first such file, and never beside one that is
there already: files whose key is gone, or another, are refused. A backup keeps it apart from the files.
"""

from __future__ import annotations

from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken

from msfl_common.errors import InputError, unreadable
from msfl_common.system.files import private_folder, read_secret, write_bytes

KEY_FILE = "account.key"
SUFFIX = ".encrypted"
SETS = "sets"  # the folder of each account whose files tell whether a key has been used


def read_account_file(state: Path, path: Path) -> bytes:
    """The content of a file of an account.

    Args:
        state: the site's state folder.
        path: the file, in it.

    Raises:
        InputError: the key is not there, or not the one that the file was written with; or the file cannot be read.
    """
    try:
        return _cipher(state).decrypt(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: {unreadable(error, 'restore it from a backup')}") from None
    except InvalidToken:
        raise InputError(
            f"{path}: was written with another key than {state / KEY_FILE}, or is damaged; restore the files and the "
            "key that belong together"
        ) from None


def write_account_file(state: Path, path: Path, content: bytes) -> None:
    """Write a file of an account, in one step; the key is made with the first.

    Raises:
        InputError: there are such files, and their key is not there; or other accounts may enter where it is to lie.
        OSError: it cannot be written.
    """
    key = state / KEY_FILE
    private_folder(path.parent, within=state)
    if not key.exists() and not any(state.glob(f"*/{SETS}/*{SUFFIX}")):
        write_bytes(key, Fernet.generate_key(), secret=True)
    write_bytes(path, _cipher(state).encrypt(content), secret=True)


def _cipher(state: Path) -> Fernet:
    key = state / KEY_FILE
    try:
        return Fernet(read_secret(key))
    except FileNotFoundError:
        fault = "the key of what was given out about patients is not there"
    except OSError as error:
        fault = unreadable(error)
    except ValueError:
        fault = "is not the key of what was given out about patients"
    raise InputError(f"{key}: {fault}; restore the one that was kept apart from the backup of {state}")
