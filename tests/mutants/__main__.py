"""`make mutants`: how many of a sample of small faults in the source the tests notice.

Each fault is put into one module as it is imported, in a fork of a process that has loaded all libraries; no file is
changed. What survives is printed with its lines, and `build/mutants.json` has all.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import ModuleType

from tests.mutants.equivalent import EQUIVALENT
from tests.mutants.sample import Mutant, sample
from tests.mutants.targets import REPOSITORY, TARGETS, Target

SEED, EACH = 12, 20
RESULTS = REPOSITORY / "build" / "mutants.json"
# What the tests import of others; a fork has it already. None of MSFL's own may be among it.
LIBRARIES = ("pytest", "numpy", "scipy.stats", "pandas", "nibabel", "torch", "flwr.app", "flwr.clientapp", "pydantic")
LIBRARIES += ("flwr.serverapp", "httpx", "hypothesis", "rich.console", "typer", "sklearn.ensemble", "pyrage", "fastapi")
PRELOADED = "ignore::pytest.PytestAssertRewriteWarning"  # of plugins that are among the libraries
OUTPUT = RESULTS.with_suffix(".log")  # what the last run of tests printed
TIMES = 5  # a run that takes so many times the unchanged source's is ended, and counts as noticed


@dataclass(frozen=True)
class Run:
    """What became of a run of tests."""

    passed: bool
    seconds: float  # of processor time


class _Put(importlib.abc.MetaPathFinder):
    """Puts a source in the place of a module's file."""

    def __init__(self, path: Path, source: str) -> None:
        self._path = path
        self._source = source

    def find_spec(self, name: str, path: object, target: ModuleType | None = None) -> ModuleSpec | None:
        package = next(iter(path)) if path else None  # type: ignore[call-overload]
        if package is None or Path(package, f"{name.rpartition('.')[2]}.py") != self._path:
            return None
        loader = _Changed(name, str(self._path))
        loader.source = self._source
        return importlib.util.spec_from_file_location(name, self._path, loader=loader)


class _Changed(SourceFileLoader):
    source = ""

    def get_code(self, fullname: str) -> object:
        return compile(self.source, self.get_filename(fullname), "exec", dont_inherit=True)


def in_fork(work: Callable[[], int], seconds: float) -> Run:
    """Whether `work` returns 0, in a process of its own that has so much processor time, and ten times as long."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, int(seconds) + 2))
            os.setsid()
            output = os.open(OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(output, 1)
            os.dup2(output, 2)
            code = work()
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    end = time.monotonic() + 10 * seconds
    while (waited := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() > end:
            os.killpg(child, 9)
        time.sleep(0.02)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Run(waited[1] == 0, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def run_tests(tests: Sequence[str], marked: str, mutant: Mutant | None, seconds: float) -> Run:
    """Run the slow tests, or the others, up to the first that fails, with or without a change."""

    def work() -> int:
        import hypothesis
        import pytest

        once = [hypothesis.Phase.explicit, hypothesis.Phase.generate]  # nobody reads the smallest example
        hypothesis.settings.register_profile("once", phases=once, derandomize=True, deadline=None)
        hypothesis.settings.load_profile("once")
        if mutant is not None:
            sys.meta_path.insert(0, _Put(mutant.module, mutant.source()))
        settings = [
            "-x",
            "-q",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:xdist",
            "-W",
            PRELOADED,
            "-o",
            f"timeout={5 * seconds:.0f}",
        ]
        code = pytest.main([*settings, "-m", marked, *tests])
        return 0 if code == pytest.ExitCode.NO_TESTS_COLLECTED else int(code)

    return in_fork(work, seconds)


@cache
def limit_of(marked: str, tests: tuple[str, ...]) -> float:
    """Processor seconds for tests of a change.

    Raises:
        SystemExit: the tests fail without any.
    """
    whole = run_tests(tests, marked, None, 600.0)
    if not whole.passed:
        sys.exit(f"tests fail without a change, see {OUTPUT}")
    return TIMES * whole.seconds + 10


def is_noticed(target: Target, mutant: Mutant) -> bool:
    """Whether any test fails."""
    return not all(
        run_tests(tests, marked, mutant, limit_of(marked, tests)).passed
        for marked, tests in target.rounds_of_tests(mutant.module)
    )


def try_target(target: Target, each: int) -> list[dict[str, object]]:
    """A row for each change."""
    rows = []
    for mutant in sample(target.paths(), each, SEED):
        before, after = mutant.change()
        reason, killed = EQUIVALENT.get((before, after)), is_noticed(target, mutant)
        where = f"{mutant.module.relative_to(REPOSITORY)}:{mutant.place[0]}"
        rows.append(
            {"target": target.name, "where": where, "before": before, "after": after, "killed": killed}
            | ({} if reason is None else {"equivalent": reason})
        )
        mark = "killed" if killed else "SURVIVED" if reason is None else "equivalent"
        print(f"  {mark:10} {where}: {before}  ->  {after}", flush=True)
    return rows


def known_rows() -> list[dict[str, object]]:
    """What earlier runs found."""
    return list(json.loads(RESULTS.read_text(encoding="utf-8"))["mutants"]) if RESULTS.exists() else []


def main() -> int:
    """Try every target, or those named; `EACH=5` for fewer of each."""
    for library in LIBRARIES:
        importlib.import_module(library)
    assert not any(name.startswith("msfl_") for name in sys.modules)
    RESULTS.parent.mkdir(exist_ok=True)
    wanted = sys.argv[1:] or [target.name for target in TARGETS]
    each = int(os.environ.get("EACH", EACH))
    print(f"seed {SEED}, {each} of each", flush=True)
    rows = [row for target in TARGETS if target.name in wanted for row in try_target(target, each)]
    counted = [row for row in rows if "equivalent" not in row]
    killed = sum(bool(row["killed"]) for row in counted)
    print(f"{killed} of {len(counted)} killed, {len(rows) - len(counted)} more equivalent; seed {SEED}")
    others = [row for row in known_rows() if row["target"] not in wanted]
    RESULTS.write_text(json.dumps({"seed": SEED, "mutants": [*others, *rows]}, indent=2) + "\n", encoding="utf-8")
    return 0 if killed >= 0.85 * len(counted) else 1


if __name__ == "__main__":
    sys.exit(main())
