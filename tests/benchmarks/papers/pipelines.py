"""Pipelines on a small cohort, as large as the paper's: 30 cases x 332 features, six classifiers, 297 pipelines each.

The table is that of `msfl-server make-table`. With z of every pipeline it takes 50 permutations of 30 folds.
`MSFL_BENCH_PERMUTATIONS` sets fewer, and the time of all is then what the rest took and that of one permutation times
50, which the figure says.
"""

from __future__ import annotations

import os
import resource
import tempfile
import time
from pathlib import Path

from msfl_server.research.small_cohort.pipelines import run_pipelines
from msfl_server.research.small_cohort.setup import PipelineSettings
from msfl_server.research.small_cohort.simulated_table import CLASSES, simulate_cases
from msfl_server.research.small_cohort.table import row_groups
from msfl_server.research.small_cohort.top import top_performers
from tests.benchmarks.figure import Figure

JOBS, PERMUTATIONS = 2, 50


def measure() -> list[Figure]:
    """Wall and CPU time of the whole table with z of all, and of finding it done; the best of all beside the nested."""
    cases, done = simulate_cases(), int(os.environ.get("MSFL_BENCH_PERMUTATIONS", PERMUTATIONS))
    settings = PipelineSettings("bench", CLASSES, permutations=done, test_all=True, groups=row_groups(cases.names, "_"))
    began: dict[str, tuple[float, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        began["pipelines"] = time.monotonic(), _cpu_seconds()

        def note(stage: str, *_: int) -> None:
            began.setdefault(stage, (time.monotonic(), _cpu_seconds()))

        results = run_pipelines(cases, settings, Path(folder) / "out", JOBS, note)
        ended = time.monotonic(), _cpu_seconds()
        again = run_pipelines(cases, settings, Path(folder) / "out", JOBS)
        again_s = time.monotonic() - ended[0]
    wall_min, cpu_min = (
        (
            began["permutations"][clock] - began["pipelines"][clock]
            + (began["weights"][clock] - began["permutations"][clock]) * PERMUTATIONS / done
            + ended[clock] - began["weights"][clock]
        ) / 60
        for clock in (0, 1)
    )  # fmt: skip
    tested = sum(row.chance is not None for row in results.rows)
    part = "" if done == PERMUTATIONS else f"; {done} permutations were run, and their time multiplied"
    how = f"{tested} of {len(results.rows)} pipelines against {PERMUTATIONS} permutations, {JOBS} processes{part}"
    best, nested = results.best[0].scored, results.nested[-1].scored
    same = "the same figures" if again == results else "other figures"
    top = len(top_performers([results]).top)
    return [
        Figure("pipelines, z of all, 30 x 332", wall_min, "min", 30.0, "at_most", "", how),
        Figure("pipelines, z of all, CPU time", cpu_min, "min", JOBS * 30.0, "at_most", "two cores for 30 min", how),
        Figure("pipelines, found done", again_s, "s", 60.0, "at_most", "", f"the same run again: {same}"),
        Figure("pipelines, top performers", top, "", None, "at_least", "", "accuracy of 0.6 and z of 2 or more"),
        Figure("pipelines, best accuracy", best.metrics["accuracy"], "", None, "at_least", "chance 0.33", "optimistic"),
        Figure(
            "pipelines, nested accuracy", nested.metrics["accuracy"], "", None, "at_least", "chance 0.33",
            f"pipeline chosen without the case, 95% CI {nested.low:.2f} to {nested.high:.2f}",
        ),
    ]  # fmt: skip


def _cpu_seconds() -> float:
    """Of this process and of those it has waited for."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
