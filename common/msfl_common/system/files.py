"""Files that are either whole or not there."""

from __future__ import annotations

import json
import logging
import os
import shlex
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from msfl_common.errors import InputError, PrivateFolderError
from msfl_common.system.reading import MOST_KEY, read_bounded

log = logging.getLogger(__name__)
_START = 1024  # bytes of a file that say what it is


def private_folder(path: Path, within: Path | None = None) -> None:
    """Make a folder that its account alone may enter, or see that one which is there already is such a folder.

    Args:
        path: the folder.
        within: one that `path` is in, which is to be private itself, as are those between.

    Raises:
        PrivateFolderError: one is a link or no folder, is another account's, or other accounts may enter it; it is
            left as it is.
    """
    if within is not None and path != within:
        private_folder(path.parent, within)
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    check_private(path)


def check_private(path: Path) -> None:
    """See that a folder is this account's alone.

    The root of a volume that is mounted for this account, as Kubernetes does, belongs to root and is taken as it is.

    Raises:
        PrivateFolderError: see `private_folder`.
    """
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        raise PrivateFolderError(
            f"{path}: is a link, which whoever made it can point elsewhere; name the folder itself"
        )
    if not stat.S_ISDIR(found.st_mode):
        raise PrivateFolderError(f"{path}: is there, but no folder; move it away")
    if os.name != "posix" or (found.st_uid == 0 != os.geteuid() and os.path.ismount(path)):
        return
    if found.st_uid != os.geteuid():
        raise PrivateFolderError(
            f"{path}: belongs to another account (number {found.st_uid}); run as that account, or "
            f"`chown -R {os.geteuid()} {quoted(path)}`"
        )
    if is_open_to_others(found.st_mode):
        raise PrivateFolderError(
            f"{path}: other accounts may enter it (mode {found.st_mode & 0o777:04o}); run `chmod 700 {quoted(path)}`"
        )
    unwritable(path)


def unwritable(path: Path) -> Path:
    """A file or folder that no other account can change, or put another in the place of, or of a folder that it is in.

    A group counts for a file and its folder, unless it has the number of its account: that is the account's own, as
    most systems make them. In a folder with the sticky bit, such as /tmp, others cannot take away what is not theirs.

    Raises:
        PrivateFolderError: another account could.
    """
    if os.name != "posix":
        return path
    of_group = () if path.is_dir() else (path, path.resolve().parent)
    for part in (*reversed(path.resolve().parents), path):
        found = part.stat()
        is_folder = stat.S_ISDIR(found.st_mode)
        if is_folder and not found.st_mode & (stat.S_IXGRP | stat.S_IXOTH):
            break  # nobody else gets below
        if is_folder and (
            found.st_mode & stat.S_ISVTX or (found.st_uid == 0 != os.geteuid() and os.path.ismount(part))
        ):
            continue
        group = stat.S_IWGRP if part in of_group and found.st_gid != found.st_uid else 0
        if found.st_mode & (stat.S_IWOTH | group):
            what = "put other files into it" if is_folder else "change it"
            raise PrivateFolderError(
                f"{part}: other accounts may {what} (mode {found.st_mode & 0o777:04o}); run `chmod go-w {quoted(part)}`"
            )
    return path


def read_secret(path: Path) -> bytes:
    """The content of a file that its account alone may use, such as a key or a passphrase.

    Raises:
        InputError: other accounts may use it, or it is no plain file, or longer than any key.
        OSError: it cannot be read.
    """
    content, mode = read_bounded(path, MOST_KEY), path.stat().st_mode
    if is_open_to_others(mode):
        raise InputError(f"{path}: other accounts may use it (mode {mode & 0o777:04o}); run `chmod 600 {quoted(path)}`")
    return content


def is_open_to_others(mode: int) -> bool:
    """Whether a file's mode lets other accounts read, write or enter it; never so where modes mean nothing."""
    return os.name == "posix" and bool(mode & (stat.S_IRWXG | stat.S_IRWXO))


def quoted(path: Path) -> str:
    """A path as a person types it in a shell: quoted where it has spaces or the like.

    >>> quoted(Path("site a/state"))
    "'site a/state'"
    """
    return shlex.quote(str(path))


def unfollowed(base: Path, folder: Path) -> Path:
    """A folder of a site's, absolute; where it is below the site file's own, no part of it may be a link.

    Who unpacks files of others beside site.yaml may have got links among them.

    Raises:
        PrivateFolderError: a part is a link.
    """
    path = Path(os.path.normpath(base / folder))
    below = path.relative_to(base).parts if path.is_relative_to(base) else ()
    for part in [path, *(base.joinpath(*below[:end]) for end in range(1, len(below)))]:
        if part.is_symlink():
            raise PrivateFolderError(
                f"{part}: is a link, which whoever made it can point elsewhere; name the folder itself"
            )
    return path


def write_bytes(path: Path, content: bytes, secret: bool = False) -> None:
    """Replace `path` by `content` in one step: after a crash the old file or the new is there, whole.

    A secret has mode 0600 from its first byte; anything else has the mode that the account's umask gives.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _faults_of(path):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            if not secret:
                temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    _sync_folder(path.parent)
    log.debug("wrote %s", path)


def write_text(path: Path, content: str) -> None:
    """`write_bytes` for UTF-8 text."""
    write_bytes(path, content.encode())


def write_json(path: Path, content: Any) -> None:
    """`write_bytes` for JSON: two-space indent, keys in the order given, no NaN."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def check_replaceable(path: Path, mark: str | None = None) -> None:
    """See that a file which a person names for a result is new, or was written for such a result before.

    Args:
        path: the file.
        mark: what stands at the start of such a result; None: nothing tells, and nothing is replaced.

    Raises:
        InputError: something else is there.
    """
    if not os.path.lexists(path):
        return
    try:
        with path.open("rb") as stream:
            ours = mark is not None and mark.encode() in stream.read(_START)
    except OSError:
        ours = False
    if not ours:
        raise InputError(f"{path}: is there already, and nothing that this command wrote; name another file")


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Fill a folder under a temporary name and move it to `path` when the block ends well.

    An existing `path` is replaced. When the block raises, `path` is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _faults_of(path):
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                with file.open("rb") as stream:
                    os.fsync(stream.fileno())
        temporary.chmod(0o777 & ~_umask())
        if path.exists():
            discarded = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.old."))
            path.replace(discarded / path.name)
            temporary.replace(path)
            shutil.rmtree(discarded)
        else:
            temporary.replace(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _sync_folder(path.parent)


@contextmanager
def unless_empty(*folders: Path) -> Iterator[None]:
    """Folders that the block makes: when it fails, those that are still empty go."""
    made = [folder for folder in folders if not os.path.lexists(folder)]
    try:
        yield
    except BaseException:
        for folder in made:
            with suppress(OSError):
                folder.rmdir()
        raise


@contextmanager
def _faults_of(path: Path) -> Iterator[None]:
    """What goes wrong is told of the name that a person knows, not of the temporary one."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(path: Path) -> None:
    """Make a rename durable where the platform can (not on Windows)."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
