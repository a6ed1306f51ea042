"""Where the SuperLink keeps what is in flight: Flower's register in SQLite, the large objects in files beside it.

In SQLite a block of weights is copied several times over, into the log, the database and caches of a dozen
connections; a file is written once and read once.

Uses Flower's private object store; flwr is pinned exactly for it.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from flwr.supercore.inflatable.inflatable_object import get_object_id
from flwr.supercore.inflatable.inflatable_utils import validate_object_content
from flwr.supercore.object_store.sql_object_store import SqlObjectStore

LARGE_BYTES = 64 * 1024  # smaller ones stay in SQLite


class FileObjectStore(SqlObjectStore):
    """Flower's SQLite store, whose large objects are files named by their digest.

    The register decides what there is: a file without its row is never handed out, a row without its file is
    as if the object had not arrived.
    """

    def __init__(self, database: str, folder: Path) -> None:
        super().__init__(database, verify=False)  # verified here, for files too
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        self._folder = folder

    def put(self, object_id: str, object_content: bytes) -> None:
        """Keep an object that was registered before.

        Raises:
            ValueError: it is not what it is called.
            NoObjectInStoreError: it was not registered.
        """
        if object_id != get_object_id(object_content):
            raise ValueError(f"Object ID {object_id} does not match content hash")
        validate_object_content(content=object_content)
        if len(object_content) < LARGE_BYTES:
            super().put(object_id, object_content)
            return
        path = self._folder / object_id
        temporary = path.with_suffix(f".{os.urandom(8).hex()}")
        temporary.write_bytes(object_content)
        temporary.replace(path)
        try:
            super().put(object_id, b"")
        except Exception:
            path.unlink(missing_ok=True)
            raise

    def get(self, object_id: str) -> bytes | None:
        """An object's content, empty while it has not arrived; None when it is not registered."""
        content = super().get(object_id)
        if content != b"":
            return content
        try:
            return (self._folder / object_id).read_bytes()
        except FileNotFoundError:
            return b""

    def delete(self, object_id: str) -> None:
        """Forget an object that nothing refers to, and what only it refers to."""
        super().delete(object_id)
        if (self._folder / object_id).exists() and object_id not in self:
            (self._folder / object_id).unlink(missing_ok=True)

    def clear(self) -> None:
        """Forget everything."""
        super().clear()
        for path in self._folder.iterdir():
            path.unlink(missing_ok=True)
