"""The updates of one round on disk, so that the server holds one of them in memory at a time, however many sites."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msfl_common.messages.records import ModelUpdate
from msfl_common.models.weights import Weights, shapes_of, type_of
from msfl_common.strategies.base import WEIGHTS
from msfl_common.strategies.sets import flat_name

# Of learned weights and of running statistics, see `msfl_server.aggregation.update_checks.moved`; then the length of
# each set of arrays that came beside them.
Moved = tuple[float, ...]

_PREFIX = ".updates."


@dataclass(frozen=True)
class StoredUpdate:
    """A site's checked update; its arrays lie in a file, one after the other, in their order.

    Attributes:
        places: of each array, the position of its first value, and its shape.
        moved: how far it goes; infinitely where that was not looked at.
        weight: what it counts for in a mean, where that is not its cases.
    """

    file: Path
    dtype: np.dtype[Any]
    num_cases: int
    train_loss: float
    seconds: float
    places: Mapping[str, tuple[int, tuple[int, ...]]] = field(repr=False)
    moved: Moved = (math.inf, math.inf)
    weight: float | None = None

    def array(self, name: str, of: str = WEIGHTS) -> NDArray[Any]:
        """See `msfl_common.strategies.base.SiteUpdate`."""
        return self.stored(name if of == WEIGHTS else flat_name(of, name))

    def stored(self, name: str) -> NDArray[Any]:
        """An array by the name that it has in the update; its pages are read as they are needed, and may be dropped."""
        start, shape = self.places[name]
        if not math.prod(shape):
            return np.empty(shape, self.dtype)
        return np.memmap(self.file, self.dtype, "c", offset=self.dtype.itemsize * start, shape=shape)

    def values(self) -> NDArray[Any]:
        """All arrays, one after the other, read as those of `stored` are."""
        return np.asarray(np.memmap(self.file, self.dtype, "c"))

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
        places, start = {}, 0
        with file.open("wb") as stream:
            for name, value in update.weights.items():
                value.tofile(stream)
                places[name] = (start, value.shape)
                start += value.size
        return StoredUpdate(file, type_of(update.weights), update.num_cases, update.train_loss, update.seconds, places)


@contextmanager
def update_store(out: Path) -> Iterator[UpdateStore]:
    """A store for one round; it is gone afterwards, or, after a kill, when the next is made."""
    out.mkdir(parents=True, exist_ok=True)
    for left in out.glob(f"{_PREFIX}*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=_PREFIX) as folder:
        yield UpdateStore(Path(folder))
