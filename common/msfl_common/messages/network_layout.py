"""Updates of a network as one vector that is added up over sites.

Legend: N values of an update, U updates that are added at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from msfl_common.errors import UpdateError
from msfl_common.messages.records import ModelUpdate
from msfl_common.models.weights import STATISTICS, Weights, expect_finite
from msfl_common.secure_aggregation.layout import Layout
from msfl_common.secure_aggregation.ring import UPDATES, Ring, Words
from msfl_common.strategies.base import Strategy
from msfl_common.strategies.sets import flattened, likes
from msfl_common.system.checked_numbers import MOST_LOSS, MOST_SECONDS, number_within, whole_number

NUM_FIGURES = 4  # cases, cases times loss, seconds, and a 1 for each site, at the end of an update
SECONDS_AT = -2

# Counts, seconds and running statistics may be large, and need no more than 19 bits behind the point.
_COARSE = 2.0**-10
# Values of an update that are added at a time, at the least, and of all updates: they stay in the processor's cache.
_PIECE, _PIECES = 2**13, 2**16
_MOST_UPDATES, _MOST_BYTES = 8, 2**27  # that are open at a time
_MARGIN = 1e-6  # of a length that was summed in floating point


@dataclass(frozen=True)
class FlatUpdate:
    """A site's update, to be added to others.

    Attributes:
        values_N: its arrays, one after the other; float32.
        figures: its cases, mean loss, and seconds.
        reach: what no value lies further than from the weights that were sent; infinite where that is not known.
    """

    values_N: NDArray[np.float32]
    figures: tuple[int, float, float]
    reach: float = float("inf")


def network_layout(strategy: Strategy, before: Weights) -> NetworkLayout:
    """Updates of a network that had the shared weights `before`."""
    return NetworkLayout(before, flattened(before, likes(strategy.answered_sets(before))))


@dataclass(frozen=True)
class NetworkLayout(Layout[ModelUpdate]):
    """A network: cases times the way from the weights that were sent, and cases times each set beside them.

    Attributes:
        before: the weights that were sent.
        like: names and shapes of an update.
    """

    before: Weights
    like: Weights
    ring: Ring = UPDATES
    seconds_at: ClassVar[int | None] = SECONDS_AT

    @property
    def length(self) -> int:  # type: ignore[override]
        """See `Layout`."""
        return sum(value.size for value in self.like.values()) + NUM_FIGURES

    def encode(self, value: ModelUpdate, num_sites: int) -> Words:
        """See `Layout`."""
        figures = (value.num_cases, value.train_loss, value.seconds)
        return self.total([FlatUpdate(_flat(value.weights[name] for name in self.like), figures)], num_sites)

    def total(self, updates: Iterable[FlatUpdate], num_sites: int) -> Words:
        """The sum of updates, of which a few are open at a time.

        Whole numbers below 2^53 are exact in float64, and those of the ring are below 2^47.

        Args:
            updates: taken one by one, so that they may be opened as they are.
            num_sites: see `Layout.encode`.

        Raises:
            UpdateError: a number lies out of the ring's range.
        """
        total = np.zeros(self.length)
        before_N = _flat(self.before.get(name, np.zeros(like.size, np.float32)) for name, like in self.like.items())
        most = max(1, min(_MOST_UPDATES, _MOST_BYTES // max(1, before_N.nbytes)))
        waiting = iter(updates)
        while some := list(islice(waiting, most)):
            self._add(total, some, before_N, self.ring.bound(num_sites))
        return total.astype(np.int64).view(np.uint64).reshape(1, -1)

    def _add(self, total: NDArray[np.float64], updates: Sequence[FlatUpdate], before_N: Any, bound: float) -> None:
        """Add some updates to a total, in place.

        Raises:
            UpdateError: a number is not below the bound.
        """
        one = float(2**self.ring.fraction_bits)
        size = max(_PIECE, _PIECES // len(updates))
        cases_U1 = np.array([[float(update.figures[0])] for update in updates])
        is_near = all(update.figures[0] * update.reach * (1 + _MARGIN) < bound for update in updates)
        ways_UN, each_U = np.empty((len(updates), size)), np.ones(len(updates))
        for scale, start, stop in self._parts():
            factors_U1 = cases_U1 * scale * one
            for low in range(start, stop, size):
                piece = slice(low, min(low + size, stop))
                ways = ways_UN[:, : piece.stop - low]
                for way, update in zip(ways, updates, strict=True):
                    way[:] = update.values_N[piece]
                ways -= before_N[piece].astype(np.float64)
                ways *= factors_U1
                if not (is_near or (ways.max() < bound * one and ways.min() > -bound * one)):
                    furthest = int(np.argmax(~(np.abs(ways) < bound * one))) % ways.shape[1]
                    name = self._name_at(low + furthest)
                    raise UpdateError(f"{name}, times cases: expected values below {bound:g}")
                total[piece] += each_U @ np.rint(ways, out=ways)  # whole numbers: exact in any order
        for num_cases, loss, seconds in (update.figures for update in updates):
            last = np.array([num_cases, num_cases * loss, seconds, 1]) * _COARSE * one
            if not (np.abs(last) < bound * one).all():
                raise UpdateError(f"cases, loss or seconds: expected values below {bound:g}")
            total[-NUM_FIGURES:] += np.rint(last)

    def _parts(self) -> Iterator[tuple[float, int, int]]:
        """Neighbouring arrays of one scale: the scale, the first value, and the one after the last."""
        stop = 0
        for scale, names in groupby(self.like, key=_scale):
            start, stop = stop, stop + sum(self.like[name].size for name in names)
            yield scale, start, stop

    def _name_at(self, position: int) -> str:
        """The array that a value of an update is of."""
        ends = np.cumsum([value.size for value in self.like.values()])
        return [*self.like][int(np.searchsorted(ends, position, side="right"))]

    def decode(self, total: Words) -> ModelUpdate:
        """See `Layout`."""
        figures = self.ring.decode(total[:, -NUM_FIGURES:]) / _COARSE
        num_cases, loss, seconds = mean_figures(figures)
        weights, start = {}, 0
        for name, like in self.like.items():
            values = self.ring.decode(total[:, start : start + like.size])
            values /= num_cases * _scale(name)
            if name in self.before:
                values += self.before[name].reshape(-1)
            weights[name] = values.astype(like.dtype).reshape(like.shape)
            start += like.size
        expect_finite(weights)
        return ModelUpdate(weights, num_cases, loss, seconds)


def mean_figures(values: Sequence[float] | NDArray[np.float64]) -> tuple[int, float, float]:
    """Cases of all sites, and their mean loss and seconds.

    Raises:
        UpdateError: no sites give such a sum.
    """
    num_cases, num_sites = whole_number("cases", float(values[0])), whole_number("sites", float(values[3]))
    loss = number_within("train_loss", float(values[1]) / num_cases, -MOST_LOSS, MOST_LOSS)
    return num_cases, loss, number_within("seconds", float(values[2]) / num_sites, 0.0, MOST_SECONDS)


def _flat(arrays: Iterable[NDArray[Any]]) -> NDArray[np.float32]:
    return np.concatenate([np.zeros(0, np.float32), *(np.ravel(value) for value in arrays)], dtype=np.float32)


def _scale(name: str) -> float:
    return _COARSE if name.endswith(STATISTICS) else 1.0
