"""Start what deploy/ configures, for real, on loopback and without root's rights."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"


def program(name: str, package: str, *folders: str) -> str:
    """Path of a program, or a skip that names the Debian package."""
    path = shutil.which(name, path=os.pathsep.join([os.environ["PATH"], "/usr/sbin", *folders]))
    if path is None:
        pytest.skip(f"{name} is not installed (Debian package {package})")
    return path


def unprivileged(account: str) -> dict[str, Any]:
    """What makes `subprocess` run a command as `account`; nothing where the tests are not run by root."""
    if os.geteuid() != 0:
        return {}
    entry = pwd.getpwnam(account)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


@contextmanager
def folder_of(account: str) -> Iterator[Path]:
    """A temporary folder that `account` owns; pytest's own are closed to other accounts."""
    folder = Path(tempfile.mkdtemp(prefix="msfl-deploy-"))
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, account)
            folder.chmod(0o755)
        yield folder
    finally:
        shutil.rmtree(folder)


def free_port() -> int:
    """A TCP port on loopback that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


def render(template: Path, values: Mapping[str, object]) -> str:
    """Fill in ${NAME} as the official nginx image's `envsubst` does: only the names it is given."""
    return re.sub(r"\$\{(\w+)\}", lambda match: str(values.get(match[1], match[0])), template.read_text())


def answers(port: int) -> bool:
    """Whether something accepts connections on a loopback port."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@contextmanager
def running(
    command: Sequence[str | Path],
    ready: Callable[[], bool],
    log: Path,
    timeout_s: float = 60,
    stop_signal: int = signal.SIGTERM,
    **options: Any,
) -> Iterator[subprocess.Popen[bytes]]:
    """A process from the moment it is ready until the end of the block."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, **options
        )
    try:
        deadline = time.monotonic() + timeout_s
        while not ready():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield process
    finally:
        process.send_signal(stop_signal)
        with suppress(subprocess.TimeoutExpired):
            process.wait(15)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
