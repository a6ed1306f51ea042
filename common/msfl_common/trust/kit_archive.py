"""The joining kit as one file: a zip of exactly its four files under `kit/`, made here and read with suspicion."""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

from msfl_common.errors import InputError, unreadable
from msfl_common.trust.kit import KIT_FILES, MOST_BYTES, lacks

_FOLDER = "kit/"  # unpacked beside site.yaml, it lies where `kit:` looks
_MOST_ARCHIVE_BYTES = 512 * 1024
_ASK_AGAIN = "ask the coordinator for it again, as `msfl-server add-site` made it"


def pack_kit(files: Mapping[str, bytes]) -> bytes:
    """The archive."""
    archive = BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in KIT_FILES:
            packed.writestr(f"{_FOLDER}{name}", files[name])
    return archive.getvalue()


def unpack_kit(path: Path) -> dict[str, bytes]:
    """The contents of an archive's files, by name; nothing is written.

    Raises:
        InputError: it is too large, damaged, or holds anything but the four files of a kit, each once.
    """
    try:
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "no such file"
            raise InputError(f"{path}: {what}; name the coordinator's archive, a .zip file")
        with path.open("rb") as stream:
            content = stream.read(_MOST_ARCHIVE_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: " + unreadable(error, "name the coordinator's archive")) from None
    if len(content) > _MOST_ARCHIVE_BYTES:
        raise InputError(f"{path}: larger than any kit, {_MOST_ARCHIVE_BYTES} bytes; {_ASK_AGAIN}")
    try:
        with zipfile.ZipFile(BytesIO(content)) as packed:
            return _contents(packed, path)
    except InputError:
        raise
    except Exception:  # zipfile raises a dozen kinds for what is no archive
        raise InputError(f"{path}: no zip archive, or a damaged one; {_ASK_AGAIN}") from None


def _contents(packed: zipfile.ZipFile, path: Path) -> dict[str, bytes]:
    expected = {f"{_FOLDER}{name}": name for name in KIT_FILES}
    files: dict[str, bytes] = {}
    for entry in packed.infolist():
        name = expected.get(entry.orig_filename)
        if name is None or entry.filename != entry.orig_filename:
            raise InputError(f"{path}: {entry.orig_filename[:100]!a} is no file of a kit; {_ASK_AGAIN}")
        if name in files:
            raise InputError(f"{path}: holds {name} twice; {_ASK_AGAIN}")
        if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
            raise InputError(f"{path}: {name} is a link, or no ordinary file; {_ASK_AGAIN}")
        if entry.flag_bits & 1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise InputError(f"{path}: {name} is encrypted, or packed in an unusual way; {_ASK_AGAIN}")
        with packed.open(entry) as stream:
            content = stream.read(MOST_BYTES + 1)  # what is read, whatever size the entry claims
        if len(content) > MOST_BYTES:
            raise InputError(f"{path}: {name} is larger than any file of a kit, {MOST_BYTES} bytes; {_ASK_AGAIN}")
        files[name] = content
    if missing := [name for name in KIT_FILES if name not in files]:
        raise InputError(f"{path}: {lacks(missing)}")
    return files
