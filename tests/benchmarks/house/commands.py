"""What `--help` of both commands takes."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

from tests.benchmarks.figure import Figure

MOST_S = 0.5
TIMES = 5


def help_s(command: str) -> float:
    """Processor time of `COMMAND --help`, the least of a few."""
    program = Path(sys.executable).with_name(command)
    taken = []
    for _ in range(TIMES):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([program, "--help"], check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(taken)


def measure() -> list[Figure]:
    """A figure for each command."""
    how = f"processor time, the least of {TIMES}"
    return [
        Figure(f"{command} --help", help_s(command), "s", MOST_S, "at_most", "", how)
        for command in ("msfl-client", "msfl-server")
    ]
