"""The keys of sites that were removed, so that a restored backup does not bring such a site back unnoticed.

`sites/removed/` holds a file for each, by the key's own digest: an older `sites/` laid over it takes none away.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from msfl_common.files import write_bytes

_FOLDER = "removed"


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
