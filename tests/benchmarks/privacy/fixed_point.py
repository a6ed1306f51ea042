"""What it costs a plain study that its updates are added up in fixed point, the same as under masks."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from msfl_common.messages.layouts import network_layout
from msfl_common.messages.records import ModelUpdate
from msfl_common.models.weights import Weights
from msfl_common.strategies.base import Answers, mean
from msfl_common.strategies.fedavg import FedAvg
from msfl_server.aggregation.averaging import Averaging
from msfl_server.aggregation.update_store import StoredUpdate, update_store
from tests.benchmarks.figure import Figure

NUM_SITES, NUM_LAYERS, LAYER = 10, 34, 35_000  # 1.19 million numbers, as the default network has
_REPEATS = 5


def measure() -> list[Figure]:
    """CPU seconds of a round's average of ten updates, of a site's encoding, and how far the weights are off."""
    rng = np.random.default_rng(0)
    before: Weights = {f"layer{n}": rng.normal(0, 0.1, LAYER).astype(np.float32) for n in range(NUM_LAYERS)}
    updates = {f"site-{number:02d}": _update(rng, before, 20 + 17 * number) for number in range(NUM_SITES)}
    how = f"{NUM_SITES} updates of {NUM_LAYERS * LAYER / 1e6:.2f} million numbers, read from disk; best of {_REPEATS}"
    with tempfile.TemporaryDirectory() as folder, update_store(Path(folder)) as store:
        stored = {site: store.keep(site, update) for site, update in updates.items()}
        fixed, found = _timed(lambda: Averaging(FedAvg()).combine(before, {}, stored).weights)
        floating, _ = _timed(lambda: _in_float32(before, stored))
    first = next(iter(updates.values()))
    encoding, _ = _timed(lambda: network_layout(FedAvg(), before).encode(first, 30))
    exact = _in_float64(updates)
    off = max(float(np.abs(found[name] - exact[name].astype(np.float32)).max()) for name in before)
    return [
        Figure("plain average in fixed point", fixed, "s CPU", 3.0, "at_most", f"{floating:.3f} s in float32", how),
        Figure("encoding at a site", encoding, "s CPU", 0.5, "at_most", "", "one update of as many numbers"),
        Figure("off the exact mean", off, "", 1e-7, "at_most", "float32 near 1: 6e-8", "largest of all weights"),
    ]


def _update(rng: np.random.Generator, before: Weights, num_cases: int) -> ModelUpdate:
    moved = {name: (value + rng.normal(0, 0.01, LAYER)).astype(np.float32) for name, value in before.items()}
    return ModelUpdate(moved, num_cases, 0.5, 1.0)


def _in_float32(before: Weights, stored: dict[str, StoredUpdate]) -> Weights:
    total = sum(one.num_cases for one in stored.values())
    shares = {site: one.num_cases / total for site, one in stored.items()}
    return mean(Answers(before, {}, stored, shares), before)


def _in_float64(updates: dict[str, ModelUpdate]) -> Weights:
    total = sum(update.num_cases for update in updates.values())
    names = next(iter(updates.values())).weights
    return {
        name: np.sum([u.num_cases * u.weights[name].astype(np.float64) for u in updates.values()], axis=0) / total
        for name in names
    }


def _timed(work: Callable[[], Weights]) -> tuple[float, Weights]:
    """CPU seconds of the fastest of some runs, and what it came to."""
    seconds = []
    for _ in range(_REPEATS):
        started = time.process_time()
        made = work()
        seconds.append(time.process_time() - started)
    return min(seconds), made
