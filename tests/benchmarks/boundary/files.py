"""A stranger's model folders and settings, thousands of them, read in a process of their own whose memory is capped."""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.benchmarks.boundary.child import Outcome, run_child
from tests.benchmarks.figure import Figure

NUM_FILES = 2000
MOST_MB = 500


def measure() -> list[Figure]:
    """Faults, memory and the slowest of all."""
    found = run_child("tests.benchmarks.boundary.files", NUM_FILES)
    how = f"{NUM_FILES} mutated model folders, YAML files and references, read as predict, check and start read them"
    return [
        Figure("mutated files that end in anything but one error", float(found.faults), "", 0, "at_most", "", how),
        Figure("memory that mutated files add", found.added_mb, "MB", MOST_MB, "at_most", "before the first", how),
        Figure("slowest mutated file", found.slowest_s, "s", 10, "at_most", "", how),
    ]


def play(num_files: int) -> Outcome:
    """Read so many files; says on stderr what is wrong."""
    from tests.attacks.file_mutations import (
        make_models,
        mutate_model,
        mutate_yaml,
        read_model,
        read_reference_of,
        reading_fault,
        yaml_trees,
    )

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models, trees, faults, slowest_s = make_models(folder), yaml_trees(), 0, 0.0
        for model in models:
            read_model(model)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for number in range(num_files):
            rng = np.random.default_rng([1, number])
            path = folder / "changed"
            if number % 2:
                read, tree = trees[rng.integers(len(trees))]
                path = folder / "settings.yaml"
                mutate_yaml(rng, tree, path)
                readers = [read]
            else:
                mutate_model(rng, models[rng.integers(len(models))], path)
                readers = [read_model, read_reference_of]
            for read in readers:
                start = time.monotonic()
                if (fault := reading_fault(read, path)) is not None:
                    faults += 1
                    sys.stderr.write(f"{number}: {fault}\n")
                slowest_s = max(slowest_s, time.monotonic() - start)
        return Outcome(faults, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, slowest_s)
