"""A coordinator's mutated requests, thousands of them, to a real site in a process whose memory is capped."""

from __future__ import annotations

import resource
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

from tests.benchmarks.boundary.child import Outcome, run_child
from tests.benchmarks.figure import Figure

NUM_REQUESTS = 5000
MOST_MB = 500


def measure() -> list[Figure]:
    """Faults, memory and the slowest of all."""
    found = run_child("tests.benchmarks.boundary.requests", NUM_REQUESTS)
    how = f"{NUM_REQUESTS} mutated requests of every kind to the site's app; its policy allows every kind of answer"
    return [
        Figure("mutated requests without a lawful answer or code", float(found.faults), "", 0, "at_most", "", how),
        Figure("memory that mutated requests add", found.added_mb, "MB", MOST_MB, "at_most", "honest requests", how),
        Figure("slowest mutated request", found.slowest_s, "s", 60, "at_most", "", how),
    ]


def play(num_requests: int) -> Outcome:
    """Send so many requests; says on stderr what is wrong."""
    from tests.attacks.request_mutations import Target, make_target, mutate_request, requests_of, studies

    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        target = Target(make_target(Path(name)))
        requests = [request for study in studies() for request in requests_of(study)]
        for kind, content in requests:
            target.ask(kind, content)
        before, faults, slowest_s = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0, 0.0
        for number in range(num_requests):
            rng = np.random.default_rng([1, number])
            kind, content = requests[rng.integers(len(requests))]
            changed, start = mutate_request(rng, content), time.monotonic()
            if (fault := target.fault(kind, changed)) is not None:
                faults += 1
                sys.stderr.write(f"{number}: {fault}\n")
            slowest_s = max(slowest_s, time.monotonic() - start)
        return Outcome(faults, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, slowest_s)
