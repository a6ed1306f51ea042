"""Twenty thousand changed replies of a site, of every kind, beside three honest ones."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from unittest import mock

from tests.attacks.fuzzing import Tally, fuzz, fuzz_bytes, fuzz_facts, fuzz_sums
from tests.attacks.recorded import CLASSIFIERS, classifier, make_patients, segmentation
from tests.benchmarks.figure import Figure

PLAYS, FACTS, SUMS, BYTES = 6000, 3000, 1000, 2500  # a play has two or more replies
SEED = 11


def measure() -> list[Figure]:
    """Runs that ended, weights that changed, and memory."""
    with tempfile.TemporaryDirectory() as name, mock.patch("time.sleep"):
        folder = Path(name)
        patients = make_patients(folder)
        recordings = [segmentation(folder), *(classifier(kind, folder, patients) for kind in CLASSIFIERS)]
        Path("/proc/self/clear_refs").write_text("5")
        before = _memory_mb("VmRSS")
        tallies = [
            fuzz(recordings, PLAYS, folder / "rounds", SEED),
            fuzz_facts(recordings, FACTS, SEED),
            fuzz_sums(recordings, SUMS, SEED),
            fuzz_bytes(recordings, BYTES, folder / "objects", SEED),
        ]
        grown = _memory_mb("VmHWM") - before
    return figures(tallies, grown)


def figures(tallies: list[Tally], grown_mb: float) -> list[Figure]:
    """What the tallies come to."""
    sent, ended = sum(tally.sent for tally in tallies), [line for tally in tallies for line in tally.ended]
    outcomes = sorted({code for tally in tallies for code in tally.outcomes})
    told = ", ".join(f"{code} {sum(tally.outcomes[code] for tally in tallies)}" for code in outcomes)
    how = "changed replies of real rounds of eight models, facts, sums and torn objects, beside three honest sites"
    return [
        Figure("changed replies", sent, "", 20_000, "at_least", "", f"{how}: {told}"),
        Figure("runs that they ended", len(ended), "", 0, "at_most", "", "; ".join(ended[:3]) or how),
        Figure(
            "rounds without the attacker whose weights differ",
            sum(tally.changed for tally in tallies),
            "",
            0,
            "at_most",
            "the same rounds without it",
            "each weight to the bit",
        ),
        Figure(
            "lines of the log with a traceback or long text", sum(t.logged for t in tallies), "", 0, "at_most", "", how
        ),
        Figure("memory that they took", grown_mb, "MB", 500, "at_most", "", "peak of the process, less that before"),
    ]


def _memory_mb(name: str) -> float:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) / 1024
