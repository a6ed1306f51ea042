"""Freed memory stays for the next step of a training, and goes back to the system afterwards."""

from __future__ import annotations

import resource
import sys

import numpy as np
import pytest

from msfl_common.system.memory import freed_memory_kept

PAGES = 256  # of 4 kB, in 1 MB


def faults_of_steps() -> int:
    """Pages that the kernel had to hand out for 20 arrays of 1 MB, one after the other."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones(PAGES * 512)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_freed_memory_kept() -> None:
    with freed_memory_kept():
        faults_of_steps()
        kept = faults_of_steps()
    assert kept < PAGES < 10 * PAGES < faults_of_steps()
