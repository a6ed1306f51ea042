"""Files of what was given out about a site's patients, encrypted with a key of the site's own.

They name patients and hold digests of their values. Of values as few as those of the EDSS, whoever has a digest finds
the value by trying all; with keyed digests, by how often each occurs. So the files are encrypted whole (Fernet: AES-128
in CBC mode, and HMAC-SHA256, which tells another key from the right one).

The key, `account.key` in the state folder, mode 0600, is made with the first such file, and never beside one that is
there already: files whose key is gone, or another, are refused. A backup keeps it apart from the files.

Another state folder would begin other accounts of the same patients. So a digest of the key stands beside the site's
own key for each data folder, and a state folder with another is refused for these data, until a person forgets it.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken
from pydantic import TypeAdapter, ValidationError

from msfl_common.config.site import SiteConfig
from msfl_common.errors import AccountError, Code, InputError, RefusedError, unreadable
from msfl_common.system.files import private_folder, read_secret, write_bytes

KEY_FILE = "account.key"
SUFFIX = ".encrypted"
MARK_SUFFIX = ".accounts"  # of the file beside the site's key
_MARKS = TypeAdapter(dict[str, str])  # data folder to a digest of the accounts' key
SETS = "sets"  # the folder of each account whose files tell whether a key has been used


def read_account_file(state: Path, path: Path) -> bytes:
    """The content of a file of an account.

    Args:
        state: the site's state folder.
        path: the file, in it.

    Raises:
        AccountError: the key is not there, or not the one that the file was written with; or the file cannot be read.
    """
    try:
        return _cipher(state).decrypt(path.read_bytes())
    except OSError as error:
        raise AccountError(f"{path}: {unreadable(error, 'restore it from a backup')}") from None
    except InvalidToken:
        raise AccountError(
            f"{path}: was written with another key than {state / KEY_FILE}, or is damaged; restore the files and the "
            "key that belong together"
        ) from None


def write_account_file(state: Path, path: Path, content: bytes) -> None:
    """Write a file of an account, in one step; the key is made with the first.

    Raises:
        AccountError: there are such files, and their key is not there.
        PrivateFolderError: other accounts may enter where it is to lie.
        OSError: it cannot be written.
    """
    private_folder(path.parent, within=state)
    _make_key(state)
    write_bytes(path, _cipher(state).encrypt(content), secret=True)


def counted_elsewhere(site: SiteConfig) -> str | None:
    """Why a state folder is not the one that counts what was given out about the patients in the site's data folders.

    Raises:
        InputError: what stands beside the site's key cannot be read.
    """
    key = site.state / KEY_FILE
    if not key.exists() and _has_sets(site.state):  # which cannot be read, and say so
        return None
    own, marks = _digest(key) if key.exists() else "", _read_marks(site)
    for folder in map(str, site.data):
        if marks.get(folder, own) != own:
            return (
                f"{site.state}: what was given out about the patients in {folder} is counted in another state folder; "
                f"name that one under `state`, or restore it with its {KEY_FILE}. Agreed with the privacy officer, "
                "`msfl-client reset-budget` lets this one begin with nothing"
            )
    return None


def expect_counted_here(site: SiteConfig) -> None:
    """Refuse a state folder that would begin to count anew; write down that this one counts.

    Raises:
        RefusedError: with the code BUDGET_SPENT; see `counted_elsewhere`.
        OSError: the key cannot be written.
    """
    if not site.key.exists():  # as in a simulation, whose answers are not counted
        return
    key = site.state / KEY_FILE
    try:
        why, marks = counted_elsewhere(site), _read_marks(site)
        if why is None:
            _make_key(site.state)
        after = marks | dict.fromkeys(map(str, site.data), _digest(key)) if key.exists() else marks
    except InputError as error:
        raise RefusedError(Code.BUDGET_SPENT, str(error)) from None
    if why is not None:
        raise RefusedError(Code.BUDGET_SPENT, why)
    if after != marks:
        with suppress(OSError):  # beside a key that lies where nothing may be written, nothing is noticed
            write_bytes(_marks_of(site), _MARKS.dump_json(after, indent=1), secret=True)


def forget_other_accounts(site: SiteConfig) -> None:
    """Let the state folder begin accounts of the patients in the site's data folders, with a new key if it is gone.

    What another account is encrypted with stays unreadable then, and is refused.
    """
    _make_key(site.state, although_needed=True)
    if _marks_of(site).exists():
        left = {folder: own for folder, own in _read_marks(site).items() if folder not in set(map(str, site.data))}
        write_bytes(_marks_of(site), _MARKS.dump_json(left, indent=1), secret=True)


def _read_marks(site: SiteConfig) -> dict[str, str]:
    path = _marks_of(site)
    try:
        return _MARKS.validate_json(path.read_bytes()) if path.exists() else {}
    except OSError as error:
        raise InputError(f"{path}: {unreadable(error)}") from None
    except ValidationError:
        raise InputError(f"{path}: damaged; restore it from a backup, or remove it") from None


def _marks_of(site: SiteConfig) -> Path:
    return site.key.with_name(site.key.name + MARK_SUFFIX)


def _make_key(state: Path, although_needed: bool = False) -> None:
    key = state / KEY_FILE
    if not key.exists() and (although_needed or not _has_sets(state)):
        private_folder(state)
        write_bytes(key, Fernet.generate_key(), secret=True)


def _has_sets(state: Path) -> bool:
    return any(state.glob(f"*/{SETS}/*{SUFFIX}"))


def _digest(key: Path) -> str:
    try:
        return hashlib.sha256(key.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"{key}: {unreadable(error)}") from None


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
    raise AccountError(f"{key}: {fault}; restore the one that was kept apart from the backup of {state}")
