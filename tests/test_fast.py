"""Who breaks the rules of `make test-fast` is told by name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
TESTS = """
import multiprocessing, subprocess, time
import pytest

def test_quick(): pass

def test_runs_a_command(): subprocess.run(["true"])

def test_hides_it():
    try:
        subprocess.run(["true"])
    except BaseException:
        pass

def test_spawns():
    multiprocessing.get_context("spawn").Process(target=print).start()

def test_computes():
    end = time.process_time() + 4.1
    while time.process_time() < end:
        pass

@pytest.mark.slow
def test_marked(): subprocess.run(["true"])
"""


@pytest.mark.slow
def test_the_fast_tests_start_no_process_and_end_soon(tmp_path: Path) -> None:
    tests = tmp_path / "test_some.py"
    tests.write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-p", "tests.fast", "-c", str(REPOSITORY / "pyproject.toml"), str(tests)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert "4 failed, 1 passed, 1 deselected" in done.stdout
    for name, why in (
        ("test_runs_a_command", "starts a process (subproc"),
        ("test_hides_it", "starts a process (subproc"),
        ("test_spawns", "starts a process (multiproc"),
        ("test_computes", "took 4."),
    ):
        assert f"::{name} - Failed: {why}" in done.stdout, done.stdout
