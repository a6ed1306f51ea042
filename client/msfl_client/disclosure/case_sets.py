"""Sets of cases that answers were about, as files of an account: each written once, under a name drawn at random."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from msfl_client.site.account_files import SETS, SUFFIX, read_account_file, write_account_file
from msfl_common.errors import InputError

Content = TypeVar("Content")


def read_set(account: Path, name: str, adapter: TypeAdapter[Content]) -> Content:
    """A set by its name.

    Args:
        account: the folder of the account, in the site's state folder.
        name: as `keep_set` gave it.
        adapter: of what the file holds.

    Raises:
        InputError: it cannot be read, is damaged, or its key is not there, or another.
    """
    path = _path(account, name)
    try:
        return adapter.validate_json(read_account_file(account.parent, path))
    except ValidationError:
        raise InputError(f"{path}: is no set of cases; restore it from a backup") from None


def keep_set(account: Path, content: Content, adapter: TypeAdapter[Content]) -> str:
    """Write a set down; returns its name.

    Raises:
        InputError: see `write_account_file`.
        OSError: it cannot be written.
    """
    name = secrets.token_hex(16)
    write_account_file(account.parent, _path(account, name), adapter.dump_json(content))
    return name


def _path(account: Path, name: str) -> Path:
    return account / SETS / f"{name}{SUFFIX}"
