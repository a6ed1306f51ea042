"""`make test-fast`: the tests of single modules that start no process and end within a second, as a plugin of pytest.

What is not fast is left out by one of two rules: it lies in a folder of `OTHERS`, or is marked `slow` or `long`. Who
adds a test that breaks the rules is told by a failure here: it starts a process, or takes more than `MOST_S` of
processor time, which is four times what `slow` stands for, so that no busy machine makes a test fail.
"""

from __future__ import annotations

import multiprocessing.process
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Folders of tests that run whole deployments, attacks and measurements.
OTHERS = ("attacks", "benchmarks", "deploy", "faults", "integration", "mutants")
MOST_S = 4.0  # of processor time, of which a machine with much other work takes up to twice as much
MANY_MODULES = 50
PROCESSES = {"subprocess.Popen", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.system"}

HERE = Path(__file__).parent
_watched = list[str]()  # the test that runs now, and what it has started
_start = pytest.StashKey[tuple[float, int]]()  # processor time, and how many modules were loaded


def pytest_configure() -> None:
    """Look at every process that is started from now on."""
    real = multiprocessing.process.BaseProcess.start

    def start(process: multiprocessing.process.BaseProcess) -> None:
        _on_event("multiprocessing", ())
        real(process)

    processes: Any = multiprocessing.process.BaseProcess
    processes.start = start
    sys.addaudithook(_on_event)


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave the other folders' modules unread."""
    parts = collection_path.relative_to(HERE).parts if collection_path.is_relative_to(HERE) else ()
    return True if parts[:1] and parts[0] in OTHERS else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is marked."""
    slow = [item for item in items if item.get_closest_marker("slow") or item.get_closest_marker("long")]
    config.hook.pytest_deselected(items=slow)
    left_out = set(slow)
    items[:] = [item for item in items if item not in left_out]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """Watch a test from its fixtures on."""
    _watched[:] = [item.nodeid]
    item.stash[_start] = time.process_time(), len(sys.modules)
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Tell what a test did that no fast one does."""
    result = yield
    before_s, num_before = item.stash[_start]
    taken = time.process_time() - before_s
    if _watched[1:]:
        pytest.fail(_advice(_watched[1]), pytrace=False)
    # Whichever test comes first loads the libraries for those that follow.
    if taken > MOST_S and len(sys.modules) < num_before + MANY_MODULES:
        pytest.fail(_advice(f"took {taken:.1f} s of processor time"), pytrace=False)
    return result


def pytest_runtest_teardown() -> None:
    """The test is over."""
    _watched.clear()


def _on_event(event: str, _: tuple[Any, ...]) -> None:
    if _watched and (event in PROCESSES or event == "multiprocessing"):
        _watched.append(f"starts a process ({event})")
        raise pytest.fail.Exception(_advice(_watched[-1]), pytrace=False)


def _advice(what: str) -> str:
    return f"{what}: mark it with `@pytest.mark.slow`, or let it do less"
