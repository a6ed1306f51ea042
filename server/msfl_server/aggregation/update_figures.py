"""How long each site's update is and how far it agrees with the others', and which ones stand out.

Of three or more sites, an update stands out

- `long` or `short`: by its length, of three times the upper median of the others or more, or a third of the lower
  median or less;
- `against`: its median cosine with the others is below -0.1 in this round and the one before, while theirs among
  themselves is above 0.1. Late in a training, when updates are mostly noise and hardly agree, nothing stands out so;
- `copy`: its cosine with another is above 0.99. Of honest sites, each has patients and patches of its own.

It is named, and counts: what a site that stands out does to the model is the strategy's matter, and `update_checks`
says which updates do not count at all.

Legend: S sites in alphabetical order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median_high, median_low
from typing import Literal

import numpy as np

from msfl_common.models.weights import Weights
from msfl_common.strategies.base import SiteUpdate
from msfl_common.strategies.robust import Floats, products_of_ways

Odd = Literal["long", "short", "against", "copy"]

TIMES = 3.0
AGAINST, AGREED = -0.1, 0.1
COPY = 0.99
_MOST_PRODUCTS = 2**33  # multiplications; of more, every so many-th value is looked at


@dataclass(frozen=True)
class UpdateFigures:
    """Of one site's update.

    Attributes:
        norm: its length, of learned weights (L2).
        cosine: the median of its cosines with the others'; None of one site, or of an update of length 0.
        odd: why it stands out, if it does.
    """

    norm: float
    cosine: float | None
    odd: Odd | None = None


def update_figures(
    before: Weights, updates: Mapping[str, SiteUpdate], earlier: Mapping[str, float | None]
) -> dict[str, UpdateFigures]:
    """The figures of a round's updates, by site.

    Args:
        before: the weights that were sent.
        updates: by site.
        earlier: the cosines of the round before, by site.
    """
    sites = sorted(updates)
    size = sum(value.size for value in before.values())
    every = max(1, size * len(sites) ** 2 // _MOST_PRODUCTS)
    products_SS = products_of_ways(before, updates, sites, every)
    norms_S = np.sqrt(np.diagonal(products_SS))
    with np.errstate(all="ignore"):
        cosines_SS = np.clip(products_SS / np.outer(norms_S, norms_S), -1.0, 1.0)
    np.fill_diagonal(cosines_SS, np.nan)
    scale = float(np.sqrt(every))  # of a sample, the length of the whole
    return {
        site: UpdateFigures(
            norm=float(norms_S[number]) * scale,
            cosine=_median(cosines_SS[number]),
            odd=_odd(number, norms_S, cosines_SS, earlier.get(site)) if len(sites) > 2 else None,
        )
        for number, site in enumerate(sites)
    }


def _odd(number: int, norms_S: Floats, cosines_SS: Floats, earlier: float | None) -> Odd | None:
    norm, others = float(norms_S[number]), np.delete(norms_S, number).tolist()
    if norm >= TIMES * median_high(others) and norm > 0:
        return "long"
    if norm <= median_low(others) / TIMES and median_low(others) > 0:
        return "short"
    own_S = np.delete(cosines_SS[number], number)
    if np.nanmax(own_S, initial=-1.0) > COPY:
        return "copy"
    others_SS = np.delete(np.delete(cosines_SS, number, 0), number, 1)
    agreed = _median(np.array([one for row in others_SS if (one := _median(row)) is not None]))
    own = _median(own_S)
    is_against = own is not None and own < AGAINST and earlier is not None and earlier < AGAINST
    return "against" if is_against and agreed is not None and agreed > AGREED else None


def _median(values: Floats) -> float | None:
    """Of what is defined."""
    defined = values[np.isfinite(values)]
    return float(np.median(defined)) if defined.size else None
