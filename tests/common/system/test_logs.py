"""Logs that stay small and private while somebody writes to them."""

from __future__ import annotations

import errno
import logging
import os
import sys
import time
from pathlib import Path

import pytest

from msfl_common.system.logs import bound_log, log_handler, open_log
from msfl_common.system.processes import Child


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_log_that_has_grown_is_moved_on_and_its_writer_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "node.log"
    with open_log(path) as stream:
        for number in range(8):
            stream.write(b"%d" % number * 100)
            stream.flush()
            bound_log(path, most_bytes=50)
        stream.write(b"last")
        stream.flush()
    assert path.read_bytes() == b"last"  # at its beginning: the writer appends
    kept = sorted(tmp_path.glob("node.log.*"))
    assert [old.read_bytes()[:1] for old in kept] == [b"7", b"6", b"5", b"4"]
    assert {mode(old) for old in [path, *kept]} == {0o600}


def test_of_a_log_that_grew_faster_than_it_is_looked_at_the_end_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(b"x" * 1000 + b"the end")
    bound_log(path, most_bytes=50)
    assert path.with_name("a.log.1").stat().st_size == 100
    assert path.with_name("a.log.1").read_bytes().endswith(b"the end")
    assert path.stat().st_size == 0


def test_a_small_log_or_none_is_left_alone(tmp_path: Path) -> None:
    bound_log(tmp_path / "none.log")
    (tmp_path / "a.log").write_bytes(b"x")
    bound_log(tmp_path / "a.log")
    assert [path.name for path in tmp_path.iterdir()] == ["a.log"]


def test_a_full_disk_keeps_no_log_growing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "a.log"
    path.write_bytes(b"x" * 1000)
    monkeypatch.setattr("msfl_common.system.logs.open_log", full)
    bound_log(path, most_bytes=50)
    assert [(one.name, one.stat().st_size) for one in tmp_path.iterdir()] == [("a.log", 0)]


def test_a_log_is_not_opened_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"")
    (tmp_path / "a.log").symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match="symbolic links"):
        open_log(tmp_path / "a.log")


def test_a_log_of_our_own_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msfl_common.system.logs.MOST_BYTES", 100)
    handler = log_handler(tmp_path / "site.log")
    logger = logging.Logger("test")
    logger.addHandler(handler)
    for number in range(50):
        logger.error("line %d", number)
    handler.close()
    assert len(list(tmp_path.iterdir())) == 5
    assert all(path.stat().st_size <= 100 and mode(path) == 0o600 for path in tmp_path.iterdir())


CHATTY = "import sys\nwhile True: print('x' * 10_000)"


@pytest.mark.slow
def test_a_child_that_never_stops_talking_does_not_fill_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("msfl_common.system.logs.bound_log.__defaults__", (100_000,))
    child = Child([sys.executable, "-c", CHATTY], tmp_path / "a.log")
    child.start()
    try:
        end = time.monotonic() + 1
        while time.monotonic() < end:
            child.tend_log()
            time.sleep(0.01)
    finally:
        child.stop(patience_s=1)
    child.tend_log()
    assert child.exit_code is not None
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 5 * 200_000
