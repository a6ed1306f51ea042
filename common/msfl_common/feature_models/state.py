"""The state of a run of a feature model, whatever its kind: a dictionary of arrays, one of which is the phase.

Legend: see the package.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
State = dict[str, Floats]

MAX_STEPS = 15  # Newton steps, those that were halved counted too, before a fit ends as it stands; no site answers more


class Phase(IntEnum):
    """What the sites are asked for."""

    PREPARE = 0
    FIT = 1
    LINK = 2
    DONE = 3


def phase_of(state: State) -> Phase:
    """The phase that a state is in."""
    return Phase(int(state["phase"]))


def scalar(value: float) -> Floats:
    """A number as an array without axes."""
    return np.array(value, dtype=np.float64)
