"""A folder of large objects in flight, shared by the SuperLink and the coordinator's server process.

Both run on one machine as one user. Through the SuperLink's port, a model that one of them has and the other needs
would be encrypted, copied a dozen times and checked again; here it is written once and read once.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

LARGE_BYTES = 64 * 1024  # smaller objects are not worth a file


class ObjectFolder:
    """Files named by whose they are and by the digest of what they hold: whoever reads one has what its name says.

    `space` keeps the objects of one message apart from the same objects of another; the empty one is that of all
    requests.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    def beside(cls, database: Path) -> ObjectFolder:
        """The folder of the SuperLink with this database."""
        return cls(database.with_name(f"{database.name}.objects"))

    def _file(self, space: str, name: str) -> Path:
        return self._folder / hashlib.sha256(f"{space}/{name}".encode()).hexdigest()

    def write(self, space: str, name: str, content: bytes) -> None:
        """Keep an object; it is there whole or not at all."""
        file = self._file(space, name)
        temporary = file.with_name(f"{file.name}.{os.urandom(8).hex()}")
        try:
            temporary.write_bytes(content)
            temporary.replace(file)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def read(self, space: str, name: str) -> bytes | None:
        """An object's content; None when it is not there."""
        try:
            return self._file(space, name).read_bytes()
        except FileNotFoundError:
            return None

    def remove(self, space: str, name: str) -> None:
        """Forget an object, if it is there."""
        self._file(space, name).unlink(missing_ok=True)

    def has(self, space: str, name: str) -> bool:
        """Whether an object is there."""
        return self._file(space, name).is_file()

    def clear(self) -> None:
        """An empty folder, made if need be."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        for path in self._folder.iterdir():
            path.unlink(missing_ok=True)


def remove_traces(database: Path) -> None:
    """Leave nothing on disk of what passed through the SuperLink with this database.

    Sites are authorised anew, and a run ends with the SuperLink: nothing of it is needed.
    """
    folder = database.with_name(f"{database.name}.objects")
    if folder.is_dir():
        ObjectFolder.beside(database).clear()
        folder.rmdir()
    for left in database.parent.glob(f"{database.name}*"):
        if left.is_file():
            left.unlink()
