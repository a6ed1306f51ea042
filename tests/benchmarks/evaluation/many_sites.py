"""What sites that a round does not ask cost it: a tenth or less of 200 asked, beside a study of those few alone."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.figure import Figure

MANY, FEW = 200, 10
STUDY = """name: many
min_patients: 1
inputs: {spacing_mm: 4.0}
network: {kind: unet, channels: [8, 16]}
training: {steps_per_round: 20, patch_voxels: 16, batch_size: 2}
rounds: {num_rounds: 5}
"""
_MSFL = (sys.executable, "-m", "msfl_server.cli.main")


@dataclass(frozen=True)
class Cost:
    """Of a run: seconds of its usual round before the last, and its process' largest memory, MB."""

    round_s: float
    memory_mb: float


def measure() -> list[Figure]:
    """Time of a round and memory, 200 sites against 10."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = ("make-cohort", "--output", folder / "cohort", "--sites", "2", "--patients", "3", "--spacing", "4")
        subprocess.run([*_MSFL, *made], check=True, capture_output=True)
        (folder / "study.yaml").write_text(STUDY, encoding="utf-8")
        few = _run(folder, FEW, "few")
        many = _run(folder, MANY, "many", "--set", f"rounds.fraction={FEW / MANY}")
    how = f"`simulate`, {FEW} of {MANY} sites asked in a round"
    alone = f"{FEW} sites in all: {few.round_s:.2f} s, {few.memory_mb:.0f} MB"
    return [
        Figure("round, few of many sites asked", many.round_s / few.round_s, "", 1.2, "at_most", alone, how),
        Figure("memory, few of many sites asked", many.memory_mb / few.memory_mb, "", 1.1, "at_most", alone, how),
    ]


def _run(folder: Path, num_sites: int, name: str, *more: str) -> Cost:
    sites = [arg for number in range(num_sites) for arg in ("--site", _site(folder, name, number))]
    command = [*_MSFL, "simulate", folder / "study.yaml", "--output", folder / name, *sites, *more, "--quiet"]
    memory_mb = _memory_of(command)
    history = json.loads((folder / name / "summary.json").read_text(encoding="utf-8"))["history"]
    return Cost(statistics.median(record["seconds"] for record in history[1:-1]), memory_mb)


def _site(folder: Path, name: str, number: int) -> Path:
    """A site's file; all sites have the patients of one of two, and states of their own."""
    path = folder / f"{name}-{number:03d}.yaml"
    data, state = folder / "cohort" / f"site-{'ab'[number % 2]}", folder / "states" / path.stem
    content = {"name": f"site-{number:03d}", "data": str(data), "state": str(state), "policy": {"min_patients": 1}}
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def _memory_of(command: Sequence[str | Path]) -> float:
    """Run a command; the largest memory that its process had, MB."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"exit code {process.returncode}: {' '.join(map(str, command[:6]))} ...")
    return usage.ru_maxrss / 1024
