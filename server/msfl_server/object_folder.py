"""A folder of large objects in flight, shared by the SuperLink and the coordinator's server process.

Both run on one machine as one user. Through the SuperLink's port, a model that one of them has and the other needs
would be encrypted, copied a dozen times and checked again; here it is written once and read once.
"""

from __future__ import annotations

import os
from pathlib import Path

LARGE_BYTES = 64 * 1024  # smaller objects are not worth a file


class ObjectFolder:
    """Files named by the digest of what they hold: whoever reads one has what its name says, whoever wrote it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    def beside(cls, database: Path) -> ObjectFolder:
        """The folder of the SuperLink with this database."""
        return cls(database.with_name(f"{database.name}.objects"))

    def write(self, name: str, content: bytes) -> None:
        """Keep an object; it is there whole or not at all."""
        temporary = self._folder / f"{name}.{os.urandom(8).hex()}"
        try:
            temporary.write_bytes(content)
            temporary.replace(self._folder / name)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def read(self, name: str) -> bytes | None:
        """An object's content; None when it is not there."""
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            return None

    def remove(self, name: str) -> None:
        """Forget an object, if it is there."""
        (self._folder / name).unlink(missing_ok=True)

    def __contains__(self, name: str) -> bool:
        return (self._folder / name).is_file()

    def clear(self) -> None:
        """An empty folder, made if need be."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        for path in self._folder.iterdir():
            path.unlink(missing_ok=True)
