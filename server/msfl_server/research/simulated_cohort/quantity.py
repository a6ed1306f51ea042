"""A map of fractional anisotropy (FA) beside a simulated scan, with an effect that is known.

Legend: D, H, W are voxels towards right, anterior and superior (RAS).
"""

import numpy as np
from numpy.typing import NDArray

from msfl_server.research.simulated_cohort.anatomy import Anatomy
from msfl_server.research.simulated_cohort.fields import Grid, Volume
from msfl_server.research.simulated_cohort.lesions import LesionMaps
from msfl_server.research.simulated_cohort.scanner import averaged

WHITE, GREY, FLUID = 0.45, 0.15, 0.05
PER_EDSS_POINT = 0.012
"""By how much the FA of white matter falls with a point of the EDSS."""
_LOST_IN_LESIONS = 0.35
_NOISE = 0.01


def fractional_anisotropy(
    rng: np.random.Generator,
    anatomy: Anatomy,
    lesions: LesionMaps,
    edss: float,
    stored: Grid,
    brain_DHW: NDArray[np.bool_],
) -> Volume:
    """FA of a visit: the same of all scanners, but for noise.

    Args:
        rng: Source of noise.
        anatomy: The patient's brain.
        lesions: Lesions of the visit.
        edss: The patient's EDSS at the visit.
        stored: Grid of the visit's images.
        brain_DHW: The brain on it.

    Returns:
        0 to 1 on the stored grid, above 0 in the brain and 0 outside; float32.
    """
    white = WHITE - PER_EDSS_POINT * edss
    fa = anatomy.wm_DHW * white * (1 - _LOST_IN_LESIONS * np.clip(lesions.extent_DHW, 0, 1))
    fa = (fa + anatomy.gm_DHW * GREY + anatomy.csf_DHW * FLUID).astype(np.float32)
    seen = averaged(fa, anatomy.grid, stored)
    seen = np.clip(seen + rng.normal(0, _NOISE, seen.shape), 1e-3, 1)
    return np.where(brain_DHW, seen, 0).astype(np.float32)
