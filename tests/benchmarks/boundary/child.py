"""A benchmark's attack in a process of its own: its memory has a limit, and its end is seen."""

from __future__ import annotations

import importlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

from tests.benchmarks.figure import Figure

MOST_MB = 500
ADDRESS_SPACE = 12 * 2**30  # bytes; torch alone maps several GB that it never touches


@dataclass(frozen=True)
class Outcome:
    """What an attack did.

    Attributes:
        faults: answers that were neither lawful nor a refusal.
        added_mb: peak memory above that before the attack.
        slowest_s: the slowest answer.
    """

    faults: int
    added_mb: float
    slowest_s: float


@dataclass
class Watch:
    """Counts faults and the slowest answer, and memory from the moment that it is made."""

    faults: int = 0
    slowest_s: float = 0.0
    before_kb: int = field(default_factory=lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)

    def look(self, number: int, find_fault: Callable[[], str | None]) -> None:
        """Try one; says on stderr what is wrong with it."""
        start = time.monotonic()
        if (fault := find_fault()) is not None:
            self.faults += 1
            sys.stderr.write(f"{number}: {fault}\n")
        self.slowest_s = max(self.slowest_s, time.monotonic() - start)

    def outcome(self) -> Outcome:
        """What has come of it."""
        added_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - self.before_kb
        return Outcome(self.faults, added_kb / 1024, self.slowest_s)


def figures_of(module: str, number: int, what: str, fault: str, most_s: float, how: str) -> list[Figure]:
    """Run `module.play(number)` in a child: its faults, the memory that it took, and the slowest of all."""
    found = run_child(module, number)
    return [
        Figure(fault, float(found.faults), "", 0, "at_most", "", how),
        Figure(f"memory that mutated {what}s add", found.added_mb, "MB", MOST_MB, "at_most", "honest ones", how),
        Figure(f"slowest mutated {what}", found.slowest_s, "s", most_s, "at_most", "", how),
    ]


def run_child(module: str, number: int) -> Outcome:
    """Run `module.play(number)` in a child.

    Raises:
        RuntimeError: the child crashed, or went beyond its memory.
    """
    command = [sys.executable, "-m", "tests.benchmarks.boundary.child", module, str(number)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode:
        raise RuntimeError(f"{module}: ended with {done.returncode}: {done.stderr[-500:]}")
    return Outcome(**json.loads(done.stdout.splitlines()[-1]))


def measure() -> list[object]:
    """No figure of its own."""
    return []


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    found = importlib.import_module(sys.argv[1]).play(int(sys.argv[2]))
    sys.stdout.write(f"\n{json.dumps(asdict(found))}\n")
