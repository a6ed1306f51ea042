"""The updates of one round on disk, so that the server holds one of them in memory at a time, however many sites."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msfl_common.messages.records import ModelUpdate
from msfl_common.models.weights import Weights, shapes_of, type_of

Moved = tuple[
    float, float
]  # of learned weights and of running statistics; see `msfl_server.aggregation.update_checks.moved`

_PREFIX = ".updates."


@dataclass(frozen=True)
class StoredUpdate:
    """A site's checked update; its weights lie in a file, one after the other, in their order."""

    file: Path
    dtype: np.dtype[Any]
    num_cases: int
    train_loss: float
    seconds: float
    moved: Moved = (0.0, 0.0)

    def read(self, start: int, size: int) -> NDArray[Any]:
        """`size` values from the `start`-th on."""
        return np.fromfile(self.file, self.dtype, size, offset=self.dtype.itemsize * start)

    def load(self, like: Weights) -> Weights:
        """All of them; `like` is what they were checked against."""
        values, weights, start = np.fromfile(self.file, self.dtype), {}, 0
        for name, shape in shapes_of(like, values.size).items():
            size = math.prod(shape)
            weights[name] = values[start : start + size].reshape(shape)
            start += size
        return weights


class UpdateStore:
    """A folder of updates. Made by `update_store`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, site: str, update: ModelUpdate) -> StoredUpdate:
        """Write an update down."""
        file = self._folder / f"{site}.bin"
        with file.open("wb") as stream:
            for value in update.weights.values():
                value.tofile(stream)
        return StoredUpdate(file, type_of(update.weights), update.num_cases, update.train_loss, update.seconds)


@contextmanager
def update_store(out: Path) -> Iterator[UpdateStore]:
    """A store for one round; it is gone afterwards, or, after a kill, when the next is made."""
    out.mkdir(parents=True, exist_ok=True)
    for left in out.glob(f"{_PREFIX}*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=_PREFIX) as folder:
        yield UpdateStore(Path(folder))


def flat_positions(weights: Weights) -> Iterator[tuple[str, int, NDArray[Any]]]:
    """Name, position of its first value in the flat file, and the array, in the network's order."""
    start = 0
    for name, value in weights.items():
        yield name, start, value
        start += value.size
