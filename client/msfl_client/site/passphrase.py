"""The passphrase of a site's key: from a systemd credential, a file that `site.yaml` names, or a person at a terminal.

Or from an environment variable, where whoever runs the site has no other place for secrets. It stands in no command
line, and in no environment of a process that takes part: it is handed to that, as what a person types is, in memory
that has no name (Linux' memfd), so that the process can be started again at night.
"""

from __future__ import annotations

import os
import sys
from getpass import getpass
from io import FileIO
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from msfl_client.site.keys import has_passphrase, load_key
from msfl_common.config.secrets import read_variable
from msfl_common.config.site import SiteConfig
from msfl_common.errors import InputError, unreadable
from msfl_common.system.files import read_secret
from msfl_common.system.reading import MOST_KEY, read_bounded

CREDENTIAL = "site.key.passphrase"
SHORTEST = 12  # characters

_unlocked: dict[Path, EllipticCurvePrivateKey] = {}


def new_passphrase(owner: str, otherwise: str = "start it at one") -> bytes:
    """Ask for the passphrase of a new key, twice.

    Args:
        owner: whose key it is.
        otherwise: the fix where there is no terminal.

    Raises:
        InputError: no terminal, too short, or the two differ.
    """
    first = ask_passphrase(f"New passphrase of {owner}'s key: ", otherwise)
    check_length(first)
    if ask_passphrase("The same again: ") != first:
        raise InputError("the two passphrases differ; nothing is made, try again")
    return first.encode()


def check_length(passphrase: str) -> None:
    """Refuse a short passphrase.

    Raises:
        InputError: it is short.
    """
    if len(passphrase) < SHORTEST:
        raise InputError(f"the passphrase: expected at least {SHORTEST} characters, found {len(passphrase)}")


def unlock(site: SiteConfig, handed: int | None = None) -> EllipticCurvePrivateKey:
    """The site's key, whatever protects it.

    Args:
        site: names the key, and the file with its passphrase.
        handed: number of an open file in which the passphrase of a person lies.

    Raises:
        InputError: the key is unsound, or there is no passphrase for it, or a wrong one.
    """
    if not has_passphrase(site.key):
        return load_key(site.key)
    passphrase = _stored(site) if handed is None else os.pread(handed, 4096, 0)
    if passphrase is None:
        raise InputError(
            f"{site.key}: has a passphrase, and there is none for it: name a file of mode 0600 as `key_passphrase:`, "
            f"give systemd the credential {CREDENTIAL}, or start at a terminal"
        )
    key = _unlocked[site.key] = load_key(site.key, passphrase)
    return key


def unlock_here(site: SiteConfig) -> EllipticCurvePrivateKey:
    """The site's key; once in a process, a person is asked for its passphrase where nothing else gives it.

    Raises:
        InputError: as `unlock`, and where there is no terminal to ask at.
    """
    if site.key in _unlocked:
        return _unlocked[site.key]
    typed = handed_by_a_person(site)
    return unlock(site, None if typed is None else typed.fileno())


def handed_by_a_person(site: SiteConfig) -> FileIO | None:
    """Ask for the passphrase where nothing else gives it; the open file to hand to the site's process, or None.

    A passphrase of an environment variable is handed over in the same way: the process has no such variable.

    Raises:
        InputError: no terminal to ask at, or the passphrase is wrong.
    """
    if not has_passphrase(site.key):
        return None
    passphrase, has_memory = _stored(site), hasattr(os, "memfd_create")
    if passphrase is not None and not (isinstance(site.key_passphrase, str) and has_memory):
        return None
    if passphrase is None:
        if not sys.stdin.isatty() or not has_memory:
            unlock(site)  # says what is missing
        passphrase = ask_passphrase(f"Passphrase of {site.key}: ").encode()
    load_key(site.key, passphrase)
    memory = FileIO(os.memfd_create("passphrase", os.MFD_CLOEXEC), "r+")
    memory.write(passphrase)
    return memory


def _stored(site: SiteConfig) -> bytes | None:
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    if credentials and (file := Path(credentials, CREDENTIAL)).exists():
        return read_bounded(file, MOST_KEY).rstrip(b"\r\n")
    if site.key_passphrase is None:
        return None
    if isinstance(site.key_passphrase, str):
        return read_variable(site.key_passphrase, "key_passphrase").rstrip(b"\r\n")
    try:
        return read_secret(site.key_passphrase).rstrip(b"\r\n")
    except OSError as error:
        raise InputError(f"{site.key_passphrase}: {unreadable(error, 'correct `key_passphrase:`')}") from None


def ask_passphrase(question: str, otherwise: str = "start it at one") -> str:
    """What a person types at the terminal, unseen.

    Raises:
        InputError: there is no terminal; `otherwise` is the fix.
    """
    if not sys.stdin.isatty():
        raise InputError(f"a passphrase is needed, and there is no terminal to type it at; {otherwise}")
    return getpass(question)
