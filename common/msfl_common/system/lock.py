"""One process at a time for a folder: a lock file with the process id of who holds it.

The lock is the kernel's (flock, by filelock): it ends with the process, and a file that is left behind locks nothing.
Where a file system has no such locks, as NFS may not, that is an error: a file in its place would outlive a kill.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from msfl_common.errors import InputError, RunError

_GLANCE_S = 0.1  # `holder` has the lock for less than this


@contextmanager
def held(lock_file: Path, taken: str) -> Iterator[None]:
    """Hold a lock file for as long as the block lasts; the kernel lets go of it when the process dies.

    Raises:
        InputError: another process holds it; `taken` is what the person is told.
    """
    lock = _lock(lock_file, _GLANCE_S, _sign)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(taken) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def in_turn(lock_file: Path) -> Iterator[None]:
    """Hold a lock file for as long as the block lasts, once whoever has it lets go of it: for a moment's work alone."""
    with _lock(lock_file, -1.0):
        yield


def holder(lock_file: Path) -> int | None:
    """The process id of who holds a lock file, or None."""
    if not lock_file.exists():
        return None
    try:
        with _lock(lock_file, 0.0):
            return None
    except Timeout:
        text = lock_file.read_text()
        return int(text) if text.isdigit() else None


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


def _lock(lock_file: Path, timeout_s: float, on_acquired: Callable[[int], None] | None = None) -> BaseFileLock:
    return FileLock(
        lock_file,
        timeout=timeout_s,
        mode=0o600,
        poll_interval=_GLANCE_S / 10,
        fallback_to_soft=False,
        on_acquired=on_acquired,
    )


def _sign(descriptor: int) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
