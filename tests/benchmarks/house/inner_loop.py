"""From a change to its test: the fast tests, how many there are, and what they notice of small faults."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from tests.benchmarks.figure import Figure

REPOSITORY = Path(__file__).parents[3]
MUTANTS = REPOSITORY / "build" / "mutants.json"
FAST_S, WHOLE_S = 90.0, 720.0
LEAST_KILLED = 0.85


def fast_tests() -> list[Figure]:
    """`make test-fast`: how long, and how many tests."""
    start = time.monotonic()
    done = subprocess.run(["make", "test-fast"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - start
    found = re.search(r"(\d+) passed", done.stdout)
    num = float(found[1]) if found and done.returncode == 0 else None
    cores = os.cpu_count() or 1
    load = f"make test-fast on {cores} cores, load {os.getloadavg()[0]:.0f} at its end"
    return [
        Figure("fast tests", seconds if num else None, "s", FAST_S, "at_most", "", load),
        Figure("fast tests that pass", num, "", None, "at_least", "", "make test-fast"),
    ]


def all_tests() -> Figure:
    """How many there are."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-qq", "-p", "no:cacheprovider"]
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    num = sum(int(line.rsplit(":", 1)[1]) for line in listed.splitlines() if re.search(r"\.py: \d+$", line))
    return Figure("tests", float(num), "", None, "at_least", "", "pytest --collect-only")


def killed() -> Figure:
    """The share of small faults that the tests notice, if `make mutants` has run."""
    name = "mutants killed"
    if not MUTANTS.is_file():
        return Figure(name, None, "", LEAST_KILLED, "at_least", "", "run `make mutants` first")
    rows = json.loads(MUTANTS.read_text(encoding="utf-8"))["mutants"]
    counted = [row for row in rows if "equivalent" not in row]
    num_killed = sum(row["killed"] for row in counted)
    by_target = {row["target"]: 0 for row in counted}
    for row in counted:
        by_target[row["target"]] += row["killed"]
    parts = ", ".join(f"{target} {num}" for target, num in by_target.items())
    how = f"{num_killed} of {len(counted)} ({parts}); {len(rows) - len(counted)} equivalent ones left out"
    return Figure(name, num_killed / max(1, len(counted)), "", LEAST_KILLED, "at_least", "", how)


def measure() -> list[Figure]:
    """All figures of the way from a change to its test."""
    return [*fast_tests(), all_tests(), killed()]
