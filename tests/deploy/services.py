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
    """Path of a program, or a skip that names its package."""
    path = shutil.which(name, path=os.pathsep.join([os.environ["PATH"], "/usr/sbin", *folders]))
    if path is None:
        pytest.skip(f"{name} is not installed; it is in the package {package}")
    return path


def account_entry(account: str) -> pwd.struct_passwd:
    """An account of this machine, or a skip."""
    try:
        return pwd.getpwnam(account)
    except KeyError:
        pytest.skip(f"this machine has no account {account}")


def unprivileged(account: str) -> dict[str, Any]:
    """What makes `subprocess` run a command as `account`; nothing where the tests are not run by root."""
    if os.geteuid() != 0:
        return {}
    entry = account_entry(account)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


@contextmanager
def folder_of(account: str) -> Iterator[Path]:
    """A temporary folder that `account` owns; pytest's own are closed to other accounts."""
    entry = account_entry(account) if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="msfl-deploy-"))
    try:
        if entry:
            os.chown(folder, entry.pw_uid, entry.pw_gid)
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


def wait_for(ready: Callable[[], bool], timeout_s: float = 10) -> bool:
    """Whether something came true in time."""
    deadline = time.monotonic() + timeout_s
    while not ready():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


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
