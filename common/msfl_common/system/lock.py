"""One process at a time for a folder: a lock file with the process id of who holds it."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from msfl_common.errors import InputError, RunError

_GLANCE_S = 0.1  # `holder` has the lock for less than this


@contextmanager
def held(lock_file: Path, taken: str) -> Iterator[None]:
    """Hold a lock file for as long as the block lasts; the kernel lets go of it when the process dies.

    Raises:
        InputError: another process holds it; `taken` is what the person is told.
    """
    with lock_file.open("a+") as lock:
        end = time.monotonic() + _GLANCE_S
        while not _lock(lock):
            if time.monotonic() > end:
                raise InputError(taken)
            time.sleep(_GLANCE_S / 10)
        lock.seek(0)
        lock.truncate()
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def holder(lock_file: Path) -> int | None:
    """The process id of who holds a lock file, or None."""
    try:
        with lock_file.open("r+") as lock:
            if not _lock(lock):
                return int(lock.read())
    except (FileNotFoundError, ValueError):
        return None
    return None


def end_holder(lock_file: Path, patience_s: float, log: Path) -> bool:
    """Tell who holds a lock file to end, and wait until it has; False when nobody holds it.

    Raises:
        RunError: it did not end in time; `log` is where the person is sent.
    """
    pid = holder(lock_file)
    if pid is None:
        return False
    os.kill(pid, signal.SIGTERM)
    end = time.monotonic() + patience_s
    while holder(lock_file) is not None:
        if time.monotonic() > end:
            raise RunError(f"process {pid} did not end within {patience_s:.0f} s; look at {log}")
        time.sleep(0.1)
    return True


def _lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
