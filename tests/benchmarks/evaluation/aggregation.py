"""What it costs the coordinator to add up many updates, beside numpy that reads and adds the same files."""

from __future__ import annotations

import tempfile
import time
import tracemalloc
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from msfl_common.messages.records import ModelUpdate
from msfl_common.strategies.fedavg import FedAvg
from msfl_common.strategies.median import Median
from msfl_server.aggregation.averaging import Averaging
from msfl_server.aggregation.update_store import StoredUpdate, update_store
from tests.benchmarks.figure import Figure

NUM_SITES, FEW = 500, 50
SHAPES = [(64, 64, 27), (128, 64, 27), (256, 128, 27), (64,), (36736,)]  # 5 MB in float32
TIMES = 3


def measure() -> list[Figure]:
    """Time of a mean against numpy's; memory with ten times as many sites."""
    rng = np.random.default_rng(0)
    before = {f"layer{n}": rng.normal(0, 1, shape).astype(np.float32) for n, shape in enumerate(SHAPES)}
    size = sum(value.size for value in before.values())
    with tempfile.TemporaryDirectory() as folder, update_store(Path(folder)) as store:
        updates: dict[str, StoredUpdate] = {}
        for number in range(NUM_SITES):
            weights = {name: value + np.float32(1e-3 * number) for name, value in before.items()}
            name, update = f"site-{number:03d}", ModelUpdate(weights, 10, 0.5, 1.0)
            updates[name] = replace(store.keep(name, update), moved=Averaging(FedAvg()).check(before, update))

        def read_and_add() -> None:
            total = np.zeros(size, np.float32)
            for update in updates.values():
                total += np.fromfile(update.file, np.float32)

        plain = _seconds(read_and_add)
        ours = _seconds(lambda: Averaging(FedAvg()).combine(before, {}, updates))
        few = dict([*updates.items()][:FEW])
        mean = _peak(FedAvg(), before, updates) / _peak(FedAvg(), before, few)
        median = _peak(Median(), before, updates) / _peak(Median(), before, few)
    how = (
        f"{NUM_SITES} updates of {size * 4 / 1e6:.0f} MB on disk, {ours:.2f} s of CPU; fixed-point sums, as under masks"
    )
    of = f"{FEW} sites"
    return [
        Figure("time to average, to reading and adding", ours / plain, "", 2.0, "at_most", f"{plain:.2f} s", how),
        Figure("memory of a mean, by sites", mean, "", 1.1, "at_most", of, f"peak of arrays, {NUM_SITES} sites"),
        Figure("memory of a median, by sites", median, "", 1.1, "at_most", of, f"peak of arrays, {NUM_SITES} sites"),
    ]


def _seconds(work: Callable[[], object]) -> float:
    """The least CPU time of some tries, s."""
    took = []
    for _ in range(TIMES):
        started = time.process_time()
        work()
        took.append(time.process_time() - started)
    return min(took)


def _peak(strategy: FedAvg | Median, before: dict[str, np.ndarray], updates: Mapping[str, StoredUpdate]) -> float:  # type: ignore[type-arg]
    tracemalloc.start()
    try:
        Averaging(strategy).combine(before, {}, updates)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
