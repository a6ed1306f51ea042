"""Sites whose means of some columns are so far off the others' that they are of something else, or made up.

Legend: P columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median, median_high
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Site = TypeVar("Site")

FAR = 1000.0  # times what the others usually vary by, at a site and between sites


def odd_means(means_P: Mapping[Site, Floats], deviations_P: Mapping[Site, Floats]) -> dict[Site, int]:
    """Of three or more sites, those that are far off, each with the number of its furthest column.

    A column in which the others do not vary says nothing: what is rare may be found at one site alone.

    Args:
        means_P: site to means.
        deviations_P: site to standard deviations.
    """
    odd: dict[Site, int] = {}
    if len(means_P) < 3:
        return odd
    for site, mean_P in means_P.items():
        others = [other for other in means_P if other != site]
        with np.errstate(all="ignore"):
            centre_P = _of_columns(median, [means_P[other] for other in others])
            spreads = [np.maximum(deviations_P[other], np.abs(means_P[other] - centre_P)) for other in others]
            usual_P = _of_columns(median_high, spreads)
            off_P = np.maximum(np.abs(mean_P - centre_P), deviations_P[site])
            times_P = np.where(usual_P > 0, off_P / np.where(usual_P > 0, usual_P, 1.0), 0.0)
        if not (times_P <= FAR).all():
            odd[site] = int(np.argmax(times_P))
    return odd


def _of_columns(figure: object, rows: list[Floats]) -> Floats:
    assert callable(figure)
    return np.array([figure(column) for column in np.stack(rows).T.tolist()])
