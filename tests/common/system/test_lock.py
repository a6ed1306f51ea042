"""A lock file is held by one process at a time, names it, and is free when that process ends."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from msfl_common.errors import InputError, RunError
from msfl_common.system.lock import end_holder, held, holder

_HOLD = """
import signal, sys, time
from pathlib import Path
from msfl_common.system.lock import held
if sys.argv[2] == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
with held(Path(sys.argv[1]), "taken"):
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def _another_process(lock: Path, manner: str = "polite") -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-c", _HOLD, lock, manner], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_who_holds_it(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    assert holder(lock) is None
    with held(lock, "taken"):
        assert holder(lock) == os.getpid()
    assert holder(lock) is None


@pytest.mark.slow
def test_one_at_a_time_until_the_other_dies(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with _another_process(lock) as process:
        with pytest.raises(InputError, match="somebody is here"), held(lock, "somebody is here"):
            pass
        assert holder(lock) == process.pid
        process.kill()
        process.wait()
        with held(lock, "somebody is here"):
            assert holder(lock) == os.getpid()


@pytest.mark.slow
def test_a_glance_does_not_keep_anybody_out(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    look = "import sys\nfrom pathlib import Path\nfrom msfl_common.system.lock import holder\n"
    look += "print('looking', flush=True)\nwhile True: holder(Path(sys.argv[1]))"
    lock.touch()
    with subprocess.Popen([sys.executable, "-c", look, lock], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            for _ in range(200):
                with held(lock, "taken"):
                    pass
        finally:
            process.kill()


@pytest.mark.slow
def test_ending_who_holds_it(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    assert end_holder(lock, 10, tmp_path / "log") is False
    with _another_process(lock) as process:
        assert end_holder(lock, 10, tmp_path / "log") is True
        process.wait()


@pytest.mark.slow
def test_who_does_not_end_is_named(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with _another_process(lock, "stubborn") as process:
        with pytest.raises(RunError, match=rf"process {process.pid} did not end within 0 s; look at .*log"):
            end_holder(lock, 0.3, tmp_path / "log")
        assert process.poll() is None


def test_the_file_is_the_accounts_own_and_locks_nothing_when_left_behind(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with held(lock, "taken"):
        assert lock.stat().st_mode & 0o777 == 0o600
    lock.write_text("12345")
    assert holder(lock) is None
    with held(lock, "taken"):
        assert lock.read_text() == str(os.getpid())


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("precious")
    (tmp_path / "lock").symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match="symbolic links"), held(tmp_path / "lock", "taken"):
        pass
    assert (tmp_path / "other").read_text() == "precious"


def test_without_the_kernels_locks_it_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with pytest.raises(OSError, match="not implemented"), held(tmp_path / "lock", "taken"):
        pass


@pytest.mark.slow
def test_a_forked_process_does_not_go_on_holding_it(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with held(lock, "taken"):
        left = subprocess.Popen(["sleep", "30"], close_fds=False)
    try:
        with held(lock, "taken"):
            pass
    finally:
        left.kill()
        left.wait()
