"""Pipelines on a small cohort, as large as the paper's: 30 cases x 332 features, six classifiers, 297 pipelines each.

The table is simulated: three classes, features on scales of their own as regional volumes and map values have them, a
tenth of them shifted by class. Its accuracies say nothing about patients.
"""

from __future__ import annotations

import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from msfl_common.dataset import Dataset
from msfl_server.research.small_cohort.pipelines import run_pipelines
from msfl_server.research.small_cohort.setup import PipelineSettings
from tests.benchmarks.figure import Figure

CASES, FEATURES, CLASSES, SEED = 30, 332, ("control", "slow", "fast"), 0
JOBS = 2


def measure() -> list[Figure]:
    """Wall and CPU time of the whole run, and of finding it done; the best of all beside what to expect."""
    cases = simulate_cases()
    settings = PipelineSettings("bench", CLASSES, seed=SEED)
    with tempfile.TemporaryDirectory() as folder:
        start, cpu = time.monotonic(), _cpu_seconds()
        results = run_pipelines(cases, settings, Path(folder) / "out", JOBS)
        wall_min, cpu_min = (time.monotonic() - start) / 60, (_cpu_seconds() - cpu) / 60
        start = time.monotonic()
        again = run_pipelines(cases, settings, Path(folder) / "out", JOBS)
        again_s = time.monotonic() - start
    tested = sum(row.chance is not None for row in results.rows)
    how = f"{len(results.rows)} pipelines, {tested} against {settings.permutations} permutations, {JOBS} processes"
    best, nested = results.best[0].scored, results.nested[-1].scored
    same = "the same figures" if again == results else "other figures"
    return [
        Figure("pipelines, 30 x 332", wall_min, "min", 10.0, "at_most", "", how),
        Figure("pipelines, 30 x 332, CPU time", cpu_min, "min", 2 * 10.0, "at_most", "two cores for 10 min", how),
        Figure("pipelines, found done", again_s, "s", 60.0, "at_most", "", f"the same run again: {same}"),
        Figure("pipelines, best accuracy", best.metrics["accuracy"], "", None, "at_least", "chance 0.33", "optimistic"),
        Figure(
            "pipelines, nested accuracy", nested.metrics["accuracy"], "", None, "at_least", "chance 0.33",
            f"pipeline chosen without the case, 95% CI {nested.low:.2f} to {nested.high:.2f}",
        ),
    ]  # fmt: skip


def simulate_cases() -> Dataset:
    """The table: balanced classes, one row a patient."""
    rng = np.random.default_rng(SEED)
    labels = (np.arange(CASES) % len(CLASSES)).astype(np.int64)
    features = rng.normal(size=(CASES, FEATURES))
    features[:, : FEATURES // 10] += 0.6 * (labels[:, None] - 1)
    features = rng.normal(0, 5, FEATURES) + features * np.exp(rng.normal(0, 1, FEATURES))
    return Dataset(
        tuple(f"roi{number:03d}" for number in range(FEATURES)),
        features,
        labels,
        tuple(f"sub-{number:02d}" for number in range(CASES)),
    )


def _cpu_seconds() -> float:
    """Of this process and of those it has waited for."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
