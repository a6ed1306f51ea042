"""Sets of cases that answers were about, as files of an account: each written once, under a name drawn at random."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from msfl_client.site.account_files import SETS, SUFFIX, read_account_file, write_account_file
from msfl_common.errors import AccountError

Content = TypeVar("Content")


def read_set(account: Path, name: str, adapter: TypeAdapter[Content]) -> Content:
    """A set by its name.

    Args:
        account: the folder of the account, in the site's state folder.
        name: as `keep_set` gave it.
        adapter: of what the file holds.

    Raises:
        AccountError: it cannot be read, is damaged, or its key is not there, or another.
    """
    path = _path(account, name)
    try:
        return adapter.validate_json(read_account_file(account.parent, path))
    except ValidationError:
        raise AccountError(f"{path}: is no set of cases; restore it from a backup") from None


def new_name() -> str:
    """A name for a set, at random."""
    return secrets.token_hex(16)


def keep_set(account: Path, content: Content, adapter: TypeAdapter[Content], name: str = "") -> str:
    """Write a set down, under a name of `new_name` where none is given; returns its name.

    Raises:
        AccountError: see `write_account_file`.
        OSError: it cannot be written.
    """
    name = name or new_name()
    write_account_file(account.parent, _path(account, name), adapter.dump_json(content))
    return name


def _path(account: Path, name: str) -> Path:
    return account / SETS / f"{name}{SUFFIX}"
