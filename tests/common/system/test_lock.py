"""A lock file is held by one process at a time, names it, and is free when that process ends."""

from __future__ import annotations

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
