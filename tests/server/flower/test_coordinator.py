"""What the coordinator's process says on the screen, and how often."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from msfl_server.flower.coordinator import Coordinator


@pytest.fixture
def said(tmp_path: Path) -> tuple[Coordinator, list[str]]:
    """A coordinator without its processes, and what it says."""
    lines: list[str] = []
    coordinator = object.__new__(Coordinator)
    (tmp_path / "study.yaml").write_text("name: s\n")
    coordinator._say = lines.append
    coordinator._ends = {}
    coordinator._studied = b"name: s\n"
    coordinator._folder = SimpleNamespace(study_file=tmp_path / "study.yaml", run=tmp_path / "run")  # type: ignore[assignment]
    return coordinator, lines


def test_a_run_that_ends_for_the_same_reason_says_it_once(said: tuple[Coordinator, list[str]]) -> None:
    coordinator, lines = said
    child = SimpleNamespace(restart_after_pause=lambda *_: 30.0, exit_code=1)
    reasons = ["a: NO_CASES"] * 5 + ["a: DISK_FULL"] * 3
    for reason in reasons:
        coordinator._revive(child, "the run", reason)  # type: ignore[arg-type]
    assert [line.split(",")[0] for line in lines] == [
        "the run ended (exit code 1; a: NO_CASES); it starts again in 30 s",
        "the run ended for the same reason; it is tried again every 30 s",
        "the run ended (exit code 1; a: DISK_FULL); it starts again in 30 s",
        "the run ended for the same reason; it is tried again every 30 s",
    ]


def test_a_study_that_is_changed_while_it_runs_is_said_once_for_each_change(
    said: tuple[Coordinator, list[str]], tmp_path: Path
) -> None:
    coordinator, lines = said
    coordinator._say_if_study_changed()
    assert lines == []
    (tmp_path / "study.yaml").write_text("name: s\nseed: 1\n")
    coordinator._say_if_study_changed()
    coordinator._say_if_study_changed()
    assert len(lines) == 1
    assert "study.yaml: was changed, without effect on this run: change it back before" in lines[0]
    (tmp_path / "study.yaml").unlink()
    coordinator._say_if_study_changed()
    assert len(lines) == 1
