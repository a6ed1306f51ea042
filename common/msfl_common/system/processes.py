"""Processes of ours that others watch over: started, ended with their starter, started again with pauses."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from msfl_common.system.logs import bound_log, open_log
from msfl_common.system.memory import LARGE

_PR_SET_PDEATHSIG = 1
# glibc keeps freed memory for later; a model's hundred megabytes, freed by many threads, would never go back.
# What is asked of the kernel anew each time comes in pages of 2 MB, where it has them: those of 4 kB cost more time
# than what is done with a block of weights. Trainings and measurements keep theirs: `freed_memory_kept`.
MEMORY = {
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": str(LARGE),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
# What a process of ours takes over of Python's own variables: nothing that names code, or where code lies.
_HARMLESS = {"PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "PYTHONUTF8", "PYTHONIOENCODING", "PYTHONHASHSEED"}
# `LD_PRELOAD` and `LD_AUDIT` have no use here, since `MEMORY` settles how memory is had.
_DOORS = {"LD_PRELOAD", "LD_AUDIT", "BASH_ENV", "ENV"}
_PATHS = ("PATH", "LD_LIBRARY_PATH")  # needed, but a relative or empty part of one means the working directory
_OURS = {
    "PYTHONSAFEPATH": "1",
    "PYTHONNOUSERSITE": "1",
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
}
_WATCH_S = 1.0
STEADY_S = 60.0  # a process that lived this long has started well; its next pause is the first again


def python_command(module: str, *arguments: object) -> list[str]:
    """The command that runs an installed module: neither the working directory nor variables can name other code."""
    return [sys.executable, "-I", "-m", module, *map(str, arguments)]


def child_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """An environment (by default this process's) without what lets other code in, for children of children too.

    Of Python's and Flower's variables only harmless ones and ours stay; paths lose their relative parts.
    """
    kept = {
        name: value
        for name, value in (os.environ if environment is None else environment).items()
        if name not in _DOORS and (name in _HARMLESS or not name.startswith(("PYTHON", "FLWR_")))
    }
    for name in _PATHS:
        if name in kept:
            kept[name] = os.pathsep.join(part for part in kept[name].split(os.pathsep) if Path(part).is_absolute())
    return kept | _OURS


def end_debug_channels() -> None:
    """Make `child_environment` this process's own, so that what libraries start has it, too."""
    environment = child_environment()
    for name in set(os.environ) - set(environment):
        del os.environ[name]
    os.environ.update(environment)


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Processes that are started in the block never hear Ctrl-C, which reaches them too: it is their starter's."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # what is started inherits it
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Child:
    """A process in a session of its own, so that Ctrl-C reaches its starter alone.

    Its output goes to `log`, which `tend_log` keeps bounded. It ends when its starter ends, however that happens. It
    inherits the sockets and files of `inherits`, under the numbers that they have here. Make a command of Python's with
    `python_command`; the environment is that of `child_environment`.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        env: Mapping[str, str] | None = None,
        inherits: Sequence[socket.socket | FileIO] = (),
    ) -> None:
        self._command = list(command)
        self._log = log
        self._inherits = tuple(inherits)
        self._env = dict(os.environ if env is None else env)
        self._process: subprocess.Popen[bytes] | None = None
        self._started = self._pause = 0.0
        self._due = 0.0

    @property
    def pid(self) -> int | None:
        """Process id, while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def exit_code(self) -> int | None:
        """How it ended; None while it runs or before its first start."""
        return None if self._process is None else self._process.poll()

    def tend_log(self) -> None:
        """Keep its log bounded; who watches over it does this every now and then."""
        bound_log(self._log)

    def start(self) -> None:
        """Start it now; what an earlier life of it left running is ended first."""
        if self._process is not None:
            _signal_group(self._process.pid, signal.SIGKILL)
        self.tend_log()
        with open_log(self._log) as stream:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                pass_fds=[one.fileno() for one in self._inherits],
                env={**MEMORY, **child_environment(self._env), "MSFL_STARTER": str(os.getpid())},
                start_new_session=True,
                preexec_fn=_die_with_starter if sys.platform == "linux" else None,
            )
        self._started = time.monotonic()

    def restart_after_pause(self, first_s: float, longest_s: float) -> float | None:
        """Start it again when its pause is over; pauses double from `first_s` while it keeps ending early.

        Returns:
            Seconds until it is started when a new pause began, else None.
        """
        now = time.monotonic()
        if self._due == 0.0:
            lived = now - self._started
            self._pause = first_s if lived > STEADY_S or not self._pause else min(2 * self._pause, longest_s)
            self._due = now + self._pause
            return self._pause
        if now >= self._due:
            self._due = 0.0
            self.start()
        return None

    def stop(self, patience_s: float = 15.0) -> None:
        """End it and everything it started: politely, then not."""
        if self._process is None:
            return
        for number, wait_s in ((signal.SIGTERM, patience_s), (signal.SIGKILL, 5.0)):
            _signal_group(self._process.pid, number)
            try:
                self._process.wait(wait_s)
                break
            except subprocess.TimeoutExpired:
                continue
        _signal_group(self._process.pid, signal.SIGKILL)


def end_with_starter(starter: int | None = None) -> None:
    """In a child: end when the process that started it is gone, also where the kernel does not see to it.

    Args:
        starter: its process id; None where it is a `Child`'s, which is told.
    """
    starter = int(os.environ.get("MSFL_STARTER", "0")) if starter is None else starter
    if not starter:
        return

    def watch() -> None:
        while os.getppid() == starter:
            time.sleep(_WATCH_S)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def _die_with_starter() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _signal_group(pid: int, number: signal.Signals) -> None:
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        return
