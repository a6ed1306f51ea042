"""Updates of some sites, for the tests of what strategies make of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from numpy.typing import NDArray

from msfl_common.strategies.base import WEIGHTS, Answers, Arrays, Sets, Strategy
from msfl_common.strategies.sets import flat_name, zeros

Floats = NDArray[Any]


@dataclass(frozen=True)
class Update:
    """A site's update in memory."""

    weights: Arrays
    num_cases: int = 10
    train_loss: float = 0.5
    sets: Arrays = field(default_factory=dict)

    def array(self, name: str, of: str = WEIGHTS) -> Floats:
        """See `SiteUpdate`."""
        return self.weights[name] if of == WEIGHTS else self.sets[flat_name(of, name)]


def drawn(num_sites: int, seed: int = 0, scale: float = 0.1) -> tuple[Arrays, list[Update]]:
    """Weights, and the updates of sites that went somewhere from them."""
    rng = np.random.default_rng(seed)

    def arrays(size: float) -> Arrays:
        return {name: rng.normal(0, size, shape).astype(np.float32) for name, shape in (("a", (3, 4)), ("b", (5,)))}

    before, way = arrays(1.0), arrays(scale)
    updates = []
    for _ in range(num_sites):
        own = arrays(scale)
        updates.append(Update({n: before[n] + way[n] + own[n] for n in before}, int(rng.integers(5, 50))))
    return before, updates


def answers_of(
    strategy: Strategy, before: Arrays, updates: Sequence[Update], state: Sets | None = None, equal: bool = False
) -> Answers:
    """As the coordinator hands them to a strategy."""
    named = {f"site-{number:02d}": update for number, update in enumerate(updates)}
    total = sum(update.num_cases for update in updates)
    shares = {site: 1 / len(named) if equal else update.num_cases / total for site, update in named.items()}
    return Answers(before, state or zeros(strategy.server_sets(before)), named, shares)


def flat(arrays: Arrays) -> Floats:
    """All values one after the other, in float64."""
    return np.concatenate([value.reshape(-1).astype(np.float64) for value in arrays.values()])


def replies(updates: Sequence[Update]) -> list[Any]:
    """As Flower's strategies are handed them."""
    made: list[Any] = []
    for number, update in enumerate(updates):
        figures = MetricRecord({"num-examples": update.num_cases, "train_loss": update.train_loss})
        content = RecordDict({"arrays": ArrayRecord(dict_of(update.weights)), "metrics": figures})
        metadata = SimpleNamespace(src_node_id=number)
        made.append(SimpleNamespace(content=content, metadata=metadata, has_error=lambda: False))
    return made


def dict_of(arrays: Arrays) -> dict[str, Array]:
    """Arrays as Flower has them."""
    return {name: Array(value) for name, value in arrays.items()}
