"""Where the SuperLink keeps what is in flight: Flower's register in SQLite, the large objects in files beside it.

In SQLite a block of weights is copied several times over, into the log, the database and caches of a dozen
connections; a file is written once and read once.

Uses Flower's private object store; flwr is pinned exactly for it.
"""

from __future__ import annotations

from flwr.supercore.inflatable.inflatable_object import get_object_id
from flwr.supercore.inflatable.inflatable_utils import validate_object_content
from flwr.supercore.object_store.sql_object_store import SqlObjectStore

from msfl_server.object_folder import LARGE_BYTES, ObjectFolder


class FileObjectStore(SqlObjectStore):
    """Flower's SQLite store, whose large objects are files named by their digest.

    The register decides what there is: a file without its row is never handed out, a row without its file is
    as if the object had not arrived.
    """

    def __init__(self, database: str, files: ObjectFolder) -> None:
        super().__init__(database, verify=False)  # verified here, for files too
        files.clear()
        self._files = files

    def put(self, object_id: str, object_content: bytes) -> None:
        """Keep an object that was registered before; an empty one stands for a file that is there already.

        Raises:
            ValueError: it is not what it is called, or the file is not there.
            NoObjectInStoreError: it was not registered.
        """
        if not object_content:
            if object_id not in self._files:
                raise ValueError(f"Object {object_id} has no content")
            super().put(object_id, b"")
            return
        if object_id != get_object_id(object_content):
            raise ValueError(f"Object ID {object_id} does not match content hash")
        validate_object_content(content=object_content)
        if len(object_content) < LARGE_BYTES:
            super().put(object_id, object_content)
            return
        self._files.write(object_id, object_content)
        try:
            super().put(object_id, b"")
        except Exception:
            self._files.remove(object_id)
            raise

    def get(self, object_id: str) -> bytes | None:
        """An object's content, empty while it has not arrived; None when it is not registered."""
        content = super().get(object_id)
        return content if content != b"" else self._files.read(object_id) or b""

    def delete(self, object_id: str) -> None:
        """Forget an object that nothing refers to, and what only it refers to."""
        super().delete(object_id)
        if object_id in self._files and object_id not in self:
            self._files.remove(object_id)

    def clear(self) -> None:
        """Forget everything."""
        super().clear()
        self._files.clear()
