"""What a site's update may be: its number of cases, and how far it goes from the weights that were sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import median_high

import numpy as np

from msfl_common.config.study import Rounds
from msfl_common.errors import UpdateError
from msfl_common.models.weights import STATISTICS, Weights

FACTS_STEP = 5  # sites round the number of cases in their facts down to a multiple of it
FURTHEST = 10.0  # times what is usual in the round
_STILL_NEAR = 0.1  # share of the weights' own length that any site may move
_BLOCK = 2**20


def check_count(num_cases: int, told: int | None, rounds: Rounds) -> None:
    """Refuse more cases than the site has told of, or than the study lets a site count for.

    Args:
        num_cases: training cases that the update is said to be of.
        told: in the site's facts, rounded down; None where there are none.
        rounds: the study's.

    Raises:
        UpdateError: there are more.
    """
    most = rounds.max_cases if told is None else min(told + FACTS_STEP - 1, rounds.max_cases)
    if num_cases > most:
        raise UpdateError(
            f"says that it is of {num_cases} cases; at most {most} were expected from the site's facts and the study's "
            "`rounds.max_cases`"
        )


def moved(weights: Weights, before: Weights) -> tuple[float, float]:
    """How far an update goes from `before`: distance of learned weights, and of running statistics; never NaN.

    Raises:
        UpdateError: a running variance below 0, which no network computes with.
    """
    squares = [0.0, 0.0]
    with np.errstate(all="ignore"):
        for name, value in weights.items():
            if name.endswith("running_var") and (value < 0).any():
                raise UpdateError(f"{name}: expected no variance below 0")
            there, here = value.reshape(-1), before[name].reshape(-1)
            for start in range(0, there.size, _BLOCK):
                step = there[start : start + _BLOCK].astype(np.float64) - here[start : start + _BLOCK]
                squares[name.endswith(STATISTICS)] += float(step @ step)
    return float(np.sqrt(squares[0])), float(np.sqrt(squares[1]))


def too_far(distances: Mapping[str, tuple[float, ...]], before: Weights) -> dict[str, str]:
    """The sites whose update goes too far, and why.

    Of three or more sites, each may go ten times as far as the upper median of the others, or a tenth of the length
    of the weights, whichever is more. Where no more than half of all sites went so much less far, nobody can say which
    half is the odd one, as of two sites: then each may go ten times the length of the weights.

    Args:
        distances: of each site, see `moved`.
        before: the weights that were sent.
    """
    zero = {name: np.zeros_like(value) for name, value in before.items()}
    length, length_of_statistics = moved({name: np.abs(value) for name, value in before.items()}, zero)
    odd: dict[str, str] = {}
    for site, (distance, of_statistics, *_) in distances.items():
        others = [other for name, other in distances.items() if name != site]
        if len(others) < 2:
            limit, limit_of_statistics = FURTHEST * length, np.inf
        else:
            split = min(FURTHEST * within_most(other[0] for other in others), FURTHEST * length)
            limit = max(FURTHEST * median_high(other[0] for other in others), _STILL_NEAR * length, split)
            limit_of_statistics = max(FURTHEST * within_most(other[1] for other in others), length_of_statistics)
        if not (distance <= limit and of_statistics <= limit_of_statistics):
            odd[site] = f"moves the weights by {distance:.3g} ({of_statistics:.3g} in running statistics); at most "
            odd[site] += f"{limit:.3g} ({limit_of_statistics:.3g}) is expected beside the other sites"
    return odd


def too_long(name: str, lengths: Mapping[str, float]) -> dict[str, str]:
    """The sites whose set of arrays beside the weights is too long, and why.

    Of three or more sites, each may be ten times as long as the upper median of the others, or as what more than half
    of all sites are within. Two say nothing of each other, nor do others whose sets are all 0.

    Args:
        name: of the set.
        lengths: of each site's.
    """
    odd: dict[str, str] = {}
    for site, length in lengths.items():
        others = [other for one, other in lengths.items() if one != site]
        limit = FURTHEST * max(median_high(others), within_most(others)) if len(others) > 1 else 0.0
        if limit and not length <= limit:
            odd[site] = f"{name}: of length {length:.3g}; at most {limit:.3g} is expected beside the other sites"
    return odd


def within_most(of_others: Iterable[float]) -> float:
    """What more than half of all sites are within, given the figures of all but one, two or more."""
    ordered = sorted(of_others)
    return ordered[(len(ordered) + 1) // 2]


def capped_shares(cases: Mapping[str, float], most: float) -> dict[str, float]:
    """Each site's share of the cases, in alphabetical order, none above `most`; the rest goes to the others by cases.

    Where `most` leaves no room, as with 0.3 and two sites, all sites count the same.
    """
    total = sum(cases.values())
    shares = {site: cases[site] / total for site in sorted(cases)}
    most = max(most, 1 / len(shares))
    capped: set[str] = set()
    while more := {site for site, share in shares.items() if share > most and site not in capped}:
        capped |= more
        rest = sum(count for site, count in cases.items() if site not in capped)
        if not rest:
            return dict.fromkeys(shares, 1 / len(shares))
        left = 1 - most * len(capped)
        shares = {site: most if site in capped else left * cases[site] / rest for site in shares}
    return shares
