"""Combine what sites sent, or else all of it but what stands in the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import combinations, islice
from typing import TypeVar

import numpy as np

from msfl_common.errors import MsflError, RunError

MOST_TRIES = 200  # a search among very many sites ends somewhere

Site = TypeVar("Site", str, int)
Part = TypeVar("Part")
Whole = TypeVar("Whole")


def combine_without_culprits(
    combine: Callable[[Mapping[Site, Part]], Whole], parts: Mapping[Site, Part], fewest: int
) -> tuple[Whole, tuple[Site, ...]]:
    """What the parts combine to, and the sites that had to be left out for it: as few as will do.

    Args:
        combine: raises an error for what cannot be combined.
        parts: site to what it sent; each has passed all checks of its own.
        fewest: sites that must be left.

    Raises:
        RunError: no choice of sites can be combined.
    """
    fault: Exception | None = None
    choices = (
        out for num_out in range(max(0, len(parts) - fewest) + 1) for out in combinations(sorted(parts), num_out)
    )
    for out in islice(choices, MOST_TRIES):
        try:
            with np.errstate(all="ignore"):
                return combine({site: part for site, part in parts.items() if site not in out}), out
        except OSError:
            raise  # the coordinator's own disk
        except Exception as error:
            fault = fault or error
    if isinstance(fault, RunError):
        raise fault
    why = str(fault) if isinstance(fault, MsflError) else f"{type(fault).__name__}: {fault}"
    raise RunError(f"what the sites sent cannot be combined, whichever is left out: {why}") from fault
