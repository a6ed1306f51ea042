"""Clinical values as deep models see them: about 0 to 1, by the range of each (Barulina et al. 2026, section 2.3).

Legend: V visits, E values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msfl_common.config.clinical_values import ClinicalValue


@dataclass(frozen=True)
class Range:
    """A value's range, and what stands for one that was never measured."""

    low: float
    high: float
    usual: float


# The subscores' ranges are Neurostatus-EDSS's, ambulation's the eighth that the paper counts among "seven".
RANGES: Mapping[str, Range] = {
    "age": Range(0, 100, 40),
    "sex": Range(0, 1, 0.5),
    "disease_duration": Range(0, 50, 8),
    "edss": Range(0, 10, 2),
    "relapses_prior_year": Range(0, 3, 0),
    "treated": Range(0, 1, 0.5),
    "fs_visual": Range(0, 6, 0),
    "fs_brainstem": Range(0, 5, 0),
    "fs_pyramidal": Range(0, 6, 1),
    "fs_cerebellar": Range(0, 5, 0),
    "fs_sensory": Range(0, 6, 1),
    "fs_bowel_bladder": Range(0, 6, 0),
    "fs_cerebral": Range(0, 5, 0),
    "fs_ambulation": Range(0, 12, 0),
}


def range_of(name: str, declared: Mapping[str, ClinicalValue]) -> Range:
    """The range of an input: that of a value which a study declares, whose middle counts as usual, or one of ours."""
    if name in RANGES:
        return RANGES[name]
    low, high = declared[name].bounds
    return Range(low, high, (low + high) / 2)


def scale_clinical(
    values_VE: NDArray[np.float64], names: Sequence[str], declared: Mapping[str, ClinicalValue]
) -> NDArray[np.float32]:
    """Scale a patient's clinical values by their ranges.

    Args:
        values_VE: a row for each visit in order of time, a column for each of `names`; NaN where not measured. Years,
            points, counts; sex and treatment are 0 or 1.
        names: what the columns are.
        declared: input to the value that it is of, of those that the study declares.

    Returns:
        Values from 0 to 1, or somewhat beyond where a value is beyond its usual range. What was not measured is
        carried forward from the visit before; before the first measurement, the usual value.
    """
    scaled_VE = np.empty(values_VE.shape, np.float32)
    for column, name in enumerate(names):
        scale = range_of(name, declared)
        last = scale.usual
        for visit, value in enumerate(values_VE[:, column]):
            last = last if np.isnan(value) else float(value)
            scaled_VE[visit, column] = (last - scale.low) / (scale.high - scale.low)
    return scaled_VE
