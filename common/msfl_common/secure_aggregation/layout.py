"""How values of a kind are vectors of a ring, so that those of several sites can be added up."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import ClassVar, Generic, TypeVar

import numpy as np

from msfl_common.config.secure_aggregation import POOLED as POOLED
from msfl_common.secure_aggregation.ring import Ring, Words, add

Value = TypeVar("Value")


class Layout(ABC, Generic[Value]):
    """A kind of value as one vector in a sum over sites.

    Attributes:
        ring: in which it is added up.
        length: numbers of the vector.
        seconds_at: the place of the seconds that a value took, which are others each time; None: it has none.
    """

    ring: Ring
    length: int
    seconds_at: ClassVar[int | None] = None

    @abstractmethod
    def encode(self, value: Value, num_sites: int) -> Words:
        """A site's value as numbers of the ring.

        Args:
            value: what the site has made.
            num_sites: how many sites at most are added up.

        Raises:
            UpdateError: a number lies out of the ring's range.
        """

    @abstractmethod
    def decode(self, total: Words) -> Value:
        """What all sites' values come to, as if of one site.

        Raises:
            UpdateError: no cases give such a sum.
        """

    def zeros(self) -> Words:
        """The sum of no values."""
        return np.zeros((self.ring.limbs, self.length), np.uint64)


def sum_of(layout: Layout[Value], values: Iterable[Value], num_sites: int) -> Words:
    """The sum of values that can be seen, the same as that of masked ones.

    Raises:
        UpdateError: a number lies out of the ring's range.
    """
    total = layout.zeros()
    for value in values:
        add(total, layout.encode(value, num_sites))
    return total
