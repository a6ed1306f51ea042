"""Take from this process, for good, what it does not need: files outside a few folders, and the network.

Linux' Landlock does it without any right of the account. What a process has given up, its children have not either,
and neither links nor mistakes in the program bring it back. https://docs.kernel.org/userspace-api/landlock.html
"""

from __future__ import annotations

import ctypes
import os
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # system calls, the same on every architecture
_ASK_VERSION = 1
_PATH_BENEATH = 1
_PR_SET_NO_NEW_PRIVS = 38

# Rights on files, in the kernel's order of bits; with the version of Landlock that brought the later ones.
_EXECUTE, _WRITE, _READ, _READ_FOLDER, _REMOVE_FOLDER, _REMOVE_FILE = (1 << bit for bit in range(6))
_MAKE_FOLDER, _MAKE_FILE = 1 << 7, 1 << 8
_MOVE, _TRUNCATE = 1 << 13, 1 << 14
_SINCE = {1: 13, 2: 14, 3: 15, 5: 16}  # how many rights each version knows
_OF_A_FILE = _EXECUTE | _WRITE | _READ | _TRUNCATE

_LOOK = _EXECUTE | _READ | _READ_FOLDER
_CHANGE = (  # links, sockets and devices cannot be made
    _LOOK | _WRITE | _REMOVE_FOLDER | _REMOVE_FILE | _MAKE_FOLDER | _MAKE_FILE | _MOVE | _TRUNCATE
)
_BIND_AND_CONNECT = 3
_SYSTEM = [
    *(
        "/usr",
        "/lib",
        "/lib64",
        "/bin",
        "/etc/ssl",
        "/etc/mime.types",
        "/etc/localtime",
        "/etc/hosts",
        "/etc/host.conf",
    ),
    *("/etc/ld.so.cache", "/etc/nsswitch.conf", "/etc/passwd", "/etc/os-release"),
]
_DEVICES = ("/dev/null", "/dev/urandom", "/dev/random", "/dev/zero")


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32))


def confine(writable: Iterable[Path], readable: Iterable[Path] = (), network: bool = False) -> bool:
    """Give up all files but the program's own and those given; call it before the first thread is started.

    Args:
        writable: folders that stay open for reading and writing.
        readable: files and folders that stay open for reading.
        network: keep TCP: without it, no port can be opened and no connection made. A socket that is open stays.

    Returns:
        Whether the system can do it: False on other systems than Linux, and where its kernel has no Landlock.
    """
    if sys.platform != "linux":
        return False
    kernel = ctypes.CDLL(None, use_errno=True)
    version = kernel.syscall(_CREATE_RULESET, None, 0, _ASK_VERSION)
    if version < 1:
        return False
    rights = (1 << max(count for since, count in _SINCE.items() if since <= version)) - 1
    asked = _Ruleset(rights, 0 if network or version < 4 else _BIND_AND_CONNECT)
    size = ctypes.sizeof(asked) if version >= 4 else 8
    ruleset = _checked(kernel.syscall(_CREATE_RULESET, ctypes.byref(asked), size, 0))
    try:
        for path in {*_program(), *readable, *map(Path, _SYSTEM)}:
            _allow(kernel, ruleset, path, _LOOK & rights)
        for path in {*writable, *map(Path, _DEVICES)}:
            _allow(kernel, ruleset, path, _CHANGE & rights)
        _checked(kernel.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        _checked(kernel.syscall(_RESTRICT_SELF, ruleset, 0))
    finally:
        os.close(ruleset)
    return True


def _program() -> set[Path]:
    """Folders of Python, its packages and MSFL; never the working directory, which is in `sys.path` too."""
    ours = {Path(__file__).parents[2]}  # where `msfl_common` lies, and below the other two where they are loaded
    for name in ("msfl_server", "msfl_client"):
        if name in sys.modules:
            ours |= {Path(folder).parent for folder in sys.modules[name].__path__}
    return {
        *ours, Path(sys.prefix), Path(sys.base_prefix), Path("/proc/self"), *map(Path, sysconfig.get_paths().values()),
    }  # fmt: skip


def _allow(kernel: ctypes.CDLL, ruleset: int, path: Path, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # a system without it does not need it
    try:
        if not path.is_dir():
            rights &= _OF_A_FILE
        rule = _PathBeneath(rights, place)
        _checked(kernel.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0))
    finally:
        os.close(place)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
