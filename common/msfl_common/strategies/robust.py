"""What strategies that withstand wrong updates share: the sites' values side by side, and how far they lie apart.

Arrays are read piece by piece, so that the coordinator never holds the updates of all sites.

Legend: S sites in alphabetical order, B values of a piece.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from msfl_common.errors import RunError
from msfl_common.strategies.base import STATISTICS, Answers, Arrays, Combination, SiteUpdate, Strategy, mean

Floats = NDArray[np.float64]

_VALUES = 2**22  # of all sites together in a piece


class FaultTolerant(Strategy):
    """A strategy for at most so many sites whose update may be anything; all others count the same."""

    faulty: int = Field(1, ge=1, le=1000, description="how many sites' updates may be wrong, or made to do harm")

    def expect_sites(self, num_sites: int) -> None:
        """Refuse a round of fewer sites than the rule needs.

        Raises:
            RunError: says how many.
        """
        if num_sites < self.fewest_sites:
            raise RunError(
                f"strategy: {self.kind} with faulty: {self.faulty} needs {self.fewest_sites} sites, and {num_sites} "
                "gave an update that counts; wait for more sites, or lower `strategy.faulty`"
            )


def by_coordinate(answers: Answers, rule: Callable[[NDArray[Any]], NDArray[Any]], sites: Sequence[str]) -> Arrays:
    """Weights whose every value is a rule's of the sites' values there.

    Args:
        answers: the round's.
        rule: from (S, B) values to B.
        sites: whose.
    """
    combined: Arrays = {}
    for name, value in answers.before.items():
        made = np.empty(value.size, value.dtype)
        for start, values_SB in pieces(answers.updates, name, value.size, sites):
            made[start : start + values_SB.shape[1]] = rule(values_SB)
        combined[name] = made.reshape(value.shape)
    return combined


def pieces(
    updates: Mapping[str, SiteUpdate], name: str, size: int, sites: Sequence[str], every: int = 1
) -> Iterator[tuple[int, NDArray[Any]]]:
    """The sites' values of an array side by side: first place and (S, B) values of each piece.

    Args:
        updates: by site.
        name: of the array.
        size: how many of its values are looked at.
        sites: whose, in the order of the rows.
        every: see `products_of_ways`.
    """
    flat = [updates[site].array(name).reshape(-1)[::every] for site in sites]
    step = max(1, _VALUES // len(sites))
    for start in range(0, size, step):
        yield start, np.stack([values[start : start + step] for values in flat])


def squared_distances(answers: Answers, sites: Sequence[str]) -> Floats:
    """(S, S) squared distances between the sites' learned weights; running statistics do not count."""
    products_SS = products_of_ways(answers.before, answers.updates, sites)
    squares_S = np.diagonal(products_SS)
    distances_SS: Floats = np.maximum(squares_S[:, None] + squares_S[None, :] - 2 * products_SS, 0.0)
    np.fill_diagonal(distances_SS, 0.0)
    return distances_SS


def products_of_ways(before: Arrays, updates: Mapping[str, SiteUpdate], sites: Sequence[str], every: int = 1) -> Floats:
    """(S, S) inner products of the sites' ways from the weights before; running statistics do not count.

    Args:
        before: the weights that were sent.
        updates: by site.
        sites: whose, in the order of the answer.
        every: which of the values are looked at: 1 all, 2 every second.
    """
    products_SS = np.zeros((len(sites), len(sites)))
    for name, value in before.items():
        if not name.endswith(STATISTICS):
            flat = value.reshape(-1)[::every]
            for start, values_SB in pieces(updates, name, flat.size, sites, every):
                ways_SB = values_SB.astype(np.float64) - flat[start : start + values_SB.shape[1]]
                products_SS += ways_SB @ ways_SB.T
    return products_SS


def krum_scores(distances_SS: Floats, faulty: int) -> Floats:
    """Of each site, the sum of squared distances to its S - faulty - 2 nearest others, of one at least."""
    num_sites = len(distances_SS)
    nearest = max(1, num_sites - faulty - 2)
    others_SS = distances_SS[~np.eye(num_sites, dtype=bool)].reshape(num_sites, num_sites - 1)
    scores_S: Floats = np.sort(others_SS, axis=1)[:, :nearest].sum(axis=1)
    return scores_S


def mean_of(answers: Answers, shares: dict[str, float]) -> Combination:
    """The mean of some sites' weights, by these shares."""
    return Combination(mean(replace(answers, shares=shares), answers.before))
