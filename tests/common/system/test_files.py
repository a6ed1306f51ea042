"""Files and folders are whole or not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from msfl_common.system.files import whole_folder, write_bytes, write_json


def test_a_file_is_replaced_in_one_step_and_nothing_else_is_left(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a", b"old")
    write_bytes(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_nan_is_not_written_as_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"value": float("nan")})
    assert not list(tmp_path.iterdir())


def test_a_folder_appears_only_when_the_block_ends_well(tmp_path: Path) -> None:
    def fill_half() -> None:
        with whole_folder(tmp_path / "out") as folder:
            (folder / "half").write_text("x")
            assert not (tmp_path / "out").exists()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fill_half()
    assert not list(tmp_path.iterdir())


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    for content in ("old", "new"):
        with whole_folder(tmp_path / "out") as folder:
            (folder / content).write_text(content)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
