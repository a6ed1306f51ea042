"""A stranger's model folders and settings, thousands of them, read in a process of their own whose memory is capped."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

from tests.benchmarks.boundary.child import Outcome, Watch, figures_of
from tests.benchmarks.figure import Figure

NUM_FILES = 2000


def measure() -> list[Figure]:
    """Faults, memory and the slowest of all."""
    how = f"{NUM_FILES} mutated model folders, YAML files and references, read as predict, check and start read them"
    fault = "mutated files that end in anything but one error"
    return figures_of("tests.benchmarks.boundary.files", NUM_FILES, "file", fault, 10, how)


def play(num_files: int) -> Outcome:
    """Read so many files; says on stderr what is wrong."""
    from tests.attacks.file_mutations import make_models, mutated_files, read_model, reading_fault

    with tempfile.TemporaryDirectory() as name:
        models = make_models(Path(name))
        for model in models:
            read_model(model)
        watch = Watch()
        for number, read, path in mutated_files(models, Path(name), num_files, seed=1):
            watch.look(number, partial(reading_fault, read, path))
        return watch.outcome()
