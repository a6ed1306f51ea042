"""The ledger holds every line in order, or says which one was touched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from msfl_client.egress import ledger, tail
from msfl_client.egress.ledger import append, read, verify
from msfl_client.egress.ledger_line import Entry, Head, hash_of
from msfl_common.errors import Code, InputError, RefusedError
from msfl_common.trust.signatures import canonical

FOLDERS = [str(Path(__file__).parents[3] / side) for side in ("common", "client")]
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(FOLDERS)}


def entry(number: int) -> Entry:
    return Entry(
        kind="model_update",
        study="pilot",
        round=number,
        arrays={"w": [2]},
        numbers=["num-examples"],
        num_bytes=8,
        sha256="0" * 64,
        num_cases=9,
        version="0.1.0",
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    for number in range(1, 5):
        append(tmp_path / "ledger.jsonl", entry(number))
    return tmp_path / "ledger.jsonl"


def test_a_ledger_left_alone_verifies(path: Path) -> None:
    assert verify(path) == 4


@pytest.mark.parametrize(
    ("touch", "line"),
    [
        (lambda lines: [lines[0], lines[1].replace(b'"round":2', b'"round":9'), *lines[2:]], 2),
        (lambda lines: [lines[0], *lines[2:]], 2),
        (lambda lines: lines[1:], 1),
        (lambda lines: [lines[0], lines[2], lines[1], lines[3]], 2),
        (lambda lines: [*lines, lines[3]], 5),
        (lambda lines: [*lines[:2], b"{}", *lines[3:]], 3),
        (lambda lines: [*lines[:2], b"", *lines[2:]], 3),
        (lambda lines: [lines[0], lines[1].replace(b'"round":2', b'"round":9,"round":2'), *lines[2:]], 2),
        (lambda lines: lines[:3], 4),
        (lambda lines: lines[:1], 2),
        (lambda lines: [*lines[:3], b"\xff"], 4),
    ],
    ids=[
        "edited", "deleted", "first-deleted", "reordered", "repeated", "replaced", "empty", "said-twice",
        "last-cut-off", "three-cut-off", "not-text",
    ],
)  # fmt: skip
def test_a_touched_line_is_named(path: Path, touch: Callable[[list[bytes]], list[bytes]], line: int) -> None:
    lines = touch(path.read_bytes().splitlines())
    path.write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(InputError, match=f"line {line} "):
        verify(path)


def test_a_line_cut_short_by_a_crash_does_not_stop_the_next(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b'{"number":5,"ki')
    append(path, entry(5))
    assert verify(path) == 5


def test_a_line_cut_short_by_a_crash_is_no_tampering(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b'{"number":5,"ki')
    assert verify(path) == 4


def edit_last(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"round":4', b'"round":5'))


def garble_last(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3] + b"\n")


def cut_last(path: Path) -> None:
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))


def cut_end_of_last(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def drop_all(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def drop_head(path: Path) -> None:
    path.with_suffix(".head").unlink()


def edit_head(path: Path) -> None:
    path.with_suffix(".head").write_text("{}x")


def other_head(path: Path) -> None:
    path.with_suffix(".head").write_text(Head(number=4, hash="1" * 64).model_dump_json())


def blank_line(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


@pytest.mark.parametrize(
    "touch",
    [
        edit_last, garble_last, cut_last, cut_end_of_last, drop_all, empty, drop_head, edit_head, other_head,
        blank_line,
    ],
)  # fmt: skip
def test_nothing_is_added_to_a_ledger_whose_end_was_touched(path: Path, touch: Callable[[Path], None]) -> None:
    touch(path)
    before = path.read_bytes() if path.exists() else b""
    head = path.with_suffix(".head").read_bytes() if path.with_suffix(".head").exists() else None
    with pytest.raises(InputError):
        verify(path)
    with pytest.raises(RefusedError) as refused:
        append(path, entry(5))
    assert refused.value.code is Code.INTERNAL
    assert str(path.with_suffix("")) in refused.value.detail
    assert path.read_bytes() == before
    assert head == (path.with_suffix(".head").read_bytes() if head is not None else None)
    with pytest.raises(InputError):
        verify(path)


APPEND = """
import os, signal, sys
from pathlib import Path
from msfl_client.egress import ledger
from msfl_client.egress.ledger_line import Entry
path, line, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
if count == 0:
    ledger._write_head = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
for _ in range(max(count, 1)):
    ledger.append(path, Entry.model_validate_json(line))
"""


def start_appending(path: Path, number: int, count: int) -> subprocess.Popen[bytes]:
    """Append `count` lines in another process; with 0, one that is killed between its two writes."""
    return subprocess.Popen(
        [sys.executable, "-c", APPEND, str(path), entry(number).model_dump_json(), str(count)], env=ENVIRONMENT
    )


def append_and_die(path: Path, number: int) -> None:
    assert start_appending(path, number, 0).wait() == -signal.SIGKILL


@pytest.mark.slow
def test_a_crash_between_line_and_head_is_no_tampering(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    append_and_die(path, 1)
    assert not path.with_suffix(".head").exists()
    assert verify(path) == 1
    append(path, entry(2))
    append_and_die(path, 3)
    assert Head.model_validate_json(path.with_suffix(".head").read_bytes()).number == 2
    assert verify(path) == 3
    append(path, entry(4))
    assert verify(path) == 4
    assert [line.round for line in read(path)] == [1, 2, 3, 4]


def test_crash_after_crash_never_leaves_the_head_two_behind(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full each time that the head is written, then it is not."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "_write_head", full)
        append(path, entry(5))  # the line is there, and the head one behind
        for number in (6, 7):
            with pytest.raises(OSError, match="No space"):
                append(path, entry(number))
    assert verify(path) == 5
    append(path, entry(6))
    assert verify(path) == 6


@pytest.mark.slow
def test_processes_that_append_at_once_keep_one_chain(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    writers = [start_appending(path, number, 25) for number in (1, 2, 3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert verify(path) == 75


@pytest.mark.slow
def test_appending_reads_no_more_of_a_long_ledger_than_of_a_short_one(tmp_path: Path) -> None:
    long, short = tmp_path / "long" / "ledger.jsonl", tmp_path / "short" / "ledger.jsonl"
    append(short, entry(1))
    long.parent.mkdir(mode=0o700)
    template = {**entry(1).model_dump(), "time": "2026-01-01T00:00:00+00:00"}
    previous = Head().hash
    with long.open("wb") as stream:
        for number in range(1, 100_001):
            body = {**template, "number": number, "previous": previous}
            previous = hash_of(body)
            stream.write(canonical({**body, "hash": previous}) + b"\n")
    ledger._write_head(long, Head(number=100_000, hash=previous))

    def bytes_read(path: Path) -> int:
        before = psutil.Process().io_counters().read_chars
        append(path, entry(1))
        return int(psutil.Process().io_counters().read_chars - before)

    bytes_read(short), bytes_read(long)
    assert bytes_read(long) < bytes_read(short) + 200_000 < long.stat().st_size / 50
    assert verify(long) == 100_002


def test_long_lines_and_short_ones_are_found_from_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "BLOCK_BYTES", 7)
    path = tmp_path / "ledger.jsonl"
    for number in (1, 2, 3):
        append(path, entry(number))
    path.write_bytes(path.read_bytes() + b"cut short")
    append(path, entry(4))
    assert verify(path) == 4
