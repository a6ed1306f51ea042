"""Cases as a model sees them: inputs, and labels or numbers.

Legend: N cases, P inputs, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Dataset:
    """Cases with inputs and labels.

    Attributes:
        names: the inputs, P of them.
        features_NP: their values, float64, finite.
        labels_N: class of each case, int64, 0 to K - 1; 0 where a number is predicted.
        patients: whose case it is, N keys that are unique within the site.
        values_N: the number that is predicted, float64, in the outcome's unit; None of classes.
    """

    names: tuple[str, ...]
    features_NP: NDArray[np.float64]
    labels_N: NDArray[np.int64]
    patients: tuple[str, ...]
    values_N: NDArray[np.float64] | None = None
