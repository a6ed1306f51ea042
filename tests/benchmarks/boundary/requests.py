"""A coordinator's mutated requests, thousands of them, to a real site in a process whose memory is capped."""

from __future__ import annotations

import tempfile
import warnings
from functools import partial
from pathlib import Path

import numpy as np

from tests.benchmarks.boundary.child import Outcome, Watch, figures_of
from tests.benchmarks.figure import Figure

NUM_REQUESTS = 5000


def measure() -> list[Figure]:
    """Faults, memory and the slowest of all."""
    how = f"{NUM_REQUESTS} mutated requests of every kind to the site's app; its policy allows every kind of answer"
    fault = "mutated requests without a lawful answer or code"
    return figures_of("tests.benchmarks.boundary.requests", NUM_REQUESTS, "request", fault, 60, how)


def play(num_requests: int) -> Outcome:
    """Send so many requests; says on stderr what is wrong."""
    from tests.attacks.request_mutations import Target, make_target, mutate_request, requests_of, studies

    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        target = Target(make_target(Path(name)))
        requests = [request for study in studies() for request in requests_of(study)]
        for kind, content in requests:
            target.ask(kind, content)
        watch = Watch()
        for number in range(num_requests):
            rng = np.random.default_rng([1, number])
            kind, content = requests[rng.integers(len(requests))]
            watch.look(number, partial(target.fault, kind, mutate_request(rng, content)))
        return watch.outcome()
