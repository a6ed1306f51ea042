"""The ledger holds every line in order, or says which one was touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from msfl_client.ledger import Entry, append, verify
from msfl_common.errors import InputError


def entry(number: int) -> Entry:
    return Entry("model_update", "pilot", number, {"w": [2]}, ["num-examples"], 8, "0" * 64, 9, "0.1.0")


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
    ],
    ids=["edited", "deleted", "first-deleted", "reordered", "repeated", "replaced"],
)
def test_a_touched_line_is_named(path: Path, touch: object, line: int) -> None:
    lines = touch(path.read_bytes().splitlines())  # type: ignore[operator]
    path.write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(InputError, match=f"line {line} "):
        verify(path)


def test_a_line_cut_short_by_a_crash_does_not_stop_the_next(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b'{"number":5,"ki')
    append(path, entry(5))
    assert verify(path) == 5
