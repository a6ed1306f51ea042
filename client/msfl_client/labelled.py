"""Cases with inputs and labels, as models of features learn from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Labelled:
    """Cases with inputs and labels.

    Attributes:
        names: of the inputs, P.
        features_NP: their values, finite.
        labels_N: the class of each case, 0 to K - 1.
        patients: the patient of each case, N.
    """

    names: tuple[str, ...]
    features_NP: NDArray[np.float64]
    labels_N: NDArray[np.int64]
    patients: tuple[str, ...]
