"""A benchmark's attack in a process of its own: its memory has a limit, and its end is seen."""

from __future__ import annotations

import importlib
import json
import os
import resource
import subprocess
import sys
from dataclasses import asdict, dataclass

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
