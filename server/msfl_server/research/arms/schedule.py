"""Runs of a comparison in several processes, as memory and cores allow, with what is left of the time.

Each process takes whatever run nobody else is at (`work`). They end with this one, however it ends; a run that is cut
off resumes from its last checkpoint when the same command is given again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from msfl_common.config.stages import stages_of
from msfl_common.errors import RunError
from msfl_common.system.lock import held
from msfl_common.system.processes import Child, python_command
from msfl_common.system.progress import console, progress_bars
from msfl_common.system.words import counted
from msfl_server.research.arms.plan import RUNS_FOLDER, ArmsPlan, Run
from msfl_server.research.arms.scores import FAILED_FILE
from msfl_server.research.arms.work import is_done
from msfl_server.rounds.stage import folder_of

LOCK_FILE = ".comparison.lock"
_LOOK_S = 0.5
_NETWORK_GB, _FEATURES_GB = 3.0, 1.0  # of a process, at most, as measured at 2 mm and with tables
_MEASURED_PART = 0.05  # of a run's work, after its last round


def default_jobs(plan: ArmsPlan) -> int:
    """How many runs fit beside each other: a core each, and memory that is free now."""
    each_gb = _NETWORK_GB if plan.study.averages else _FEATURES_GB
    return max(1, min(os.cpu_count() or 1, int(free_memory_gb() // each_gb), len(plan.runs)))


def free_memory_gb() -> float:
    """Memory that programs can have now; where the system does not tell, all that there is."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) / 2**20
    except (OSError, StopIteration, ValueError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30


def run_all(plan: ArmsPlan, out: Path, jobs: int) -> None:
    """Run what is left of a comparison; returns when every run is measured or cannot be trained.

    Args:
        plan: see `claim_plan`.
        out: its folder.
        jobs: processes at the same time.

    Raises:
        InputError: another command is at work in the folder.
        RunError: a process ended before its work was done.
    """
    runs = plan.runs
    with held(out / LOCK_FILE, f"{out}: another process compares here; wait for it to end"):
        for name in runs:
            (out / RUNS_FOLDER / name / FAILED_FILE).unlink(missing_ok=True)  # it is tried once more
        left = [name for name in runs if not is_done(out / RUNS_FOLDER / name)]
        _say_plan(len(runs), len(left), jobs)
        if left:
            with _workers(out, min(jobs, len(left))) as workers:
                _watch(runs, out, workers)


def _say_plan(num_runs: int, num_left: int, jobs: int) -> None:
    done = f", {num_runs - num_left} of them finished before" if num_left < num_runs else ""
    console.print(f"{counted(num_runs, 'run')}{done}; {jobs} at a time, their logs in {RUNS_FOLDER}/")


@contextmanager
def _workers(out: Path, jobs: int) -> Iterator[list[Child]]:
    threads = max(1, (os.cpu_count() or 1) // jobs)
    env = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = python_command("msfl_server.research.arms.work", out, threads)
    workers = [Child(command, out / RUNS_FOLDER / f"worker-{number}.log", env) for number in range(1, jobs + 1)]
    try:
        for worker in workers:
            worker.start()
        yield workers
    finally:
        for worker in workers:
            worker.stop()


def _watch(runs: dict[str, Run], out: Path, workers: list[Child]) -> None:
    total = sum(run.num_steps for run in runs.values())
    before = sum(done_part(run, out / RUNS_FOLDER / run.name) * run.num_steps for run in runs.values())
    finished = {name for name in runs if is_done(out / RUNS_FOLDER / name)}
    started = time.monotonic()
    with progress_bars() as bars:
        task = bars.add_task("runs", total=len(runs), completed=len(finished), note="")
        while True:
            at_work = any(worker.pid is not None for worker in workers)
            done = sum(done_part(run, out / RUNS_FOLDER / run.name) * run.num_steps for run in runs.values())
            left = time_left(done - before, total - done, time.monotonic() - started)
            for name in runs:
                if name not in finished and is_done(out / RUNS_FOLDER / name):
                    finished.add(name)
                    _say_finished(name, out, len(finished), len(runs), left)
            bars.update(task, completed=len(finished), note=f"{100 * done / total:.0f}% of all steps{left}")
            if len(finished) == len(runs):
                return
            if not at_work:
                raise RunError(
                    f"{counted(len(runs) - len(finished), 'run')} left, but every process has ended; look at the "
                    f"end of {out / RUNS_FOLDER / 'worker-1.log'}, and give the same command again to go on"
                )
            time.sleep(_LOOK_S)


def _say_finished(name: str, out: Path, number: int, num_runs: int, left: str) -> None:
    failed = (out / RUNS_FOLDER / name / FAILED_FILE).exists()
    told = f"{number} of {num_runs}: {name} {'could not be trained' if failed else 'is measured'}{left}"
    console.print(told, style="yellow" if failed else None, soft_wrap=True)


def done_part(run: Run, folder: Path) -> float:
    """How much of a run is done, from 0 to 1, as its checkpoints tell."""
    if is_done(folder):
        return 1.0
    rounds = [(run.study.segmentation or run.study.rounds), run.study.rounds]
    wanted, found = 0, 0
    for stage in stages_of(run.study):
        num_rounds = rounds[stage == "final"].num_rounds
        there = (folder_of(stage, folder) / "checkpoints").glob("round_*")
        wanted += num_rounds
        found += min(num_rounds, max((int(path.name.removeprefix("round_")) for path in there), default=0))
    return (1 - _MEASURED_PART) * found / wanted


def time_left(done: float, left: float, seconds: float) -> str:
    """What is left of the time, at the pace of this process's work; empty while that is not known."""
    if done <= 0 or left <= 0 or seconds < _LOOK_S:
        return ""
    minutes = left / done * seconds / 60
    return f"; about {minutes / 60:.1f} h left" if minutes >= 90 else f"; about {max(1, round(minutes))} min left"
