"""Freed memory stays for the next step of a training, and goes back to the system afterwards."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PAGES = 256  # of 4 kB, in 1 MB
# A process of its own, whose heap has no gaps that others have left. Steps are 20 arrays of 1 MB, one after the other.
STEPS = f"""
import json, resource
import numpy as np
from msfl_common.system.memory import freed_memory_kept

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones({PAGES * 512})
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

with freed_memory_kept():
    faults()
    kept = faults()
print(json.dumps([kept, faults()]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_freed_memory_kept() -> None:
    done = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, check=True)
    kept, given_back = json.loads(done.stdout)
    assert kept < PAGES < 10 * PAGES < given_back
